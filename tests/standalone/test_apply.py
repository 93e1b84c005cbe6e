"""Apply and delete: what is new is made, what changed is made again, what is wrong changes nothing."""

import contextlib
import time
from pathlib import Path

import pytest
from mesh_lab import Lab, documents, ping, responder, until

from nsmesh.standalone.making import READY

pytestmark = pytest.mark.root

WORKLOAD = """
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: {name}
  annotations:
    networkservicemesh.io: kernel://{service}/nsm-1
spec:
  command: {command}
"""
SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: plain}
spec: {payload: IP}
"""
LINK = """
apiVersion: nsmesh/v1
kind: Link
metadata: {{name: cable}}
spec:
  ends:
    - {{of: responder, interface: eth0, addresses: [192.0.2.1/30]}}
    - {{of: {other}, interface: eth0, addresses: [192.0.2.2/30]}}
"""
ARTICLE = """\
apiVersion:networkservicemesh.io/v1alpha1
kind:NetworkService
metadata:
  name:secure-intranet-connectivity
spec:
  payload:IP
  matches:
    - match:
      sourceSelector:
        app:firewall
      route
        - destination:
          destinationSelector:
            app:vpn-gateway
    match:
      route:
        - destination:
          destinationSelector:
            app:firewall
"""


def workload(name="client", service="ping", command="[sleep, infinity]"):
    return WORKLOAD.format(name=name, service=service, command=command)


@pytest.fixture(scope="module")
def mesh():
    with Lab() as lab:
        lab.up()
        lab.apply(responder()).ok()
        yield lab


@pytest.fixture(autouse=True)
def unchanged(mesh):
    """After each test the mesh has what it had: one responder, its service, and nothing else."""
    yield
    for kind in ("links", "clients"):
        for row in mesh.get(kind):
            mesh.nsm("delete", kind, row["name"])
    assert [row["name"] for row in mesh.get("endpoints")] == ["responder"]
    assert [row["name"] for row in mesh.get("services")] == ["ping"]
    assert mesh.get("clients") == mesh.get("links") == []
    until(lambda: mesh.get("connections") == [], 3)
    assert mesh.spaces() == ["responder"]
    assert mesh.row("endpoints", "responder")["state"] == "ready"


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a: [1,\nb", ["stdin:1:4: not valid YAML", "brackets"]),
        ("just text", ["stdin:1:1: "]),
        (
            "apiVersion: nsmesh/v1\nkind: Worklod\nmetadata: {name: a}\n",
            ["stdin:2:7: nsmesh/v1 has no kind 'Worklod'", "did you mean 'Workload'?"],
        ),
        (
            "apiVersion: nsmesh/v1\nkind: Workload\nmetadata: {name: a}\nspec: {comand: [a]}\n",
            ["stdin:4:8: ", "comand", "did you mean 'command'?"],
        ),
        ("", ["stdin has no document"]),
        ("# nothing\n---\n", ["stdin has no document"]),
        (
            (
                "apiVersion: nsmesh/v1\nkind: Endpoint\nmetadata: {name: a}\n"
                "spec: {type: firewal, services: [s]}\n"
            ),
            ["there is no endpoint type 'firewal'", "did you mean 'firewall'?"],
        ),
        (
            documents(
                "a: &a [x,x,x,x,x,x,x,x,x]\n"
                + "".join(
                    f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n"
                    for p, c in zip("abcdefgh", "bcdefghi", strict=True)
                )
            ),
            ["stdin:", "values with its aliases written out", "use fewer aliases"],
        ),
        ("x" * (5 << 20), ["standard input has more than 1048576 bytes", "split it"]),
        (b"\xff\xfe\x00", ["standard input is not UTF-8 text (byte 0)"]),
    ],
)
def test_texts_that_cannot_be_used(mesh, text, pieces):
    """Each mistake is shown at its place, quickly, before the mesh is asked."""
    begin = time.process_time()
    mesh.apply(text).fails(*pieces)
    assert time.process_time() - begin < 2


def test_the_broken_listing_of_the_article(mesh):
    """A listing with wrong indentation is answered with the corrected lines."""
    mesh.apply(ARTICLE).fails(
        "stdin:1:", "1 + apiVersion: networkservicemesh.io/v1alpha1", "11 +       route:", "15 +     - match:"
    )


def test_files_that_are_not_there(mesh):
    """Missing files, empty directories, files that cannot be read; two mistakes in two files at once."""
    mesh.nsm("apply", "-f", "no/such.yaml").fails("there is no file no/such.yaml", "-f")
    folder = mesh.root / "empty"
    folder.mkdir(exist_ok=True)
    mesh.nsm("apply", "-f", str(folder)).fails(f"the directory {folder} has no .yaml, .yml, .json file")
    one, two = mesh.write("1.yaml", "kind: A\n"), mesh.write("2.yaml", "kind: B\n")
    mesh.nsm("apply", "-f", str(one), "-f", str(two)).fails("1.yaml:1:1: apiVersion is missing", "2.yaml:1:1")
    mesh.nsm("apply").fails("'-f'", code=2)


def test_a_directory_is_applied_by_name_and_deleted_again(mesh):
    """All manifests of a folder, in the order of their names; deleting the folder takes all away."""
    folder = mesh.root / "all"
    folder.mkdir()
    (folder / "1.yaml").write_text(SERVICE)
    (folder / "2.yml").write_text(workload())
    (folder / "notes.txt").write_text("no manifest")
    done = mesh.nsm("apply", "-f", str(folder)).ok()
    assert done.out.index("service plain registered: any endpoint") < done.out.index(
        "workload client started: sleep"
    )
    done = mesh.nsm("delete", "-f", str(folder)).ok()
    assert "workload client deleted" in done.out
    assert "service plain deleted" in done.out
    mesh.nsm("delete", "-f", str(folder)).fails("there is no")


def test_again_is_unchanged_and_different_is_replaced(mesh):
    """Applying the same twice touches nothing; what differs is made anew, and only that."""
    text = documents(SERVICE, workload(), responder())
    mesh.apply(text).ok()
    before = mesh.get("clients"), mesh.get("endpoints")[0]["pid"], mesh.get("connections")[0]["hops"]
    done = mesh.apply(text).ok()
    assert sorted(done.out.splitlines()) == [
        "endpoint responder unchanged",
        "service plain unchanged",
        "workload client unchanged",
    ]
    assert (
        mesh.get("clients"),
        mesh.get("endpoints")[0]["pid"],
        mesh.get("connections")[0]["hops"],
    ) == before
    done = mesh.apply(documents(SERVICE.replace("IP", "ETHERNET"), workload(command="[sleep, '1000']"))).ok()
    assert "service plain updated" in done.out
    assert "workload client is replaced" in done.out
    assert mesh.row("clients", "client")["command"] == "sleep 1000"
    assert mesh.get("endpoints")[0]["pid"] == before[1]
    mesh.nsm("delete", "service", "plain").ok()


def test_what_can_be_checked_is_checked_first(mesh):
    """All that is wrong is told at once, and nothing is changed, not even what is right."""
    text = documents(
        responder("fresh", "fresh", "172.29.1.0/24"),
        LINK.format(other="nobody"),
        workload("a", command="[no-such-program]"),
        workload("b", command="[./no-such-file]"),
        workload("c").replace("spec:", "spec:\n  netns: no-such-namespace"),
        workload("responder"),
        workload("nsmgr"),
    )
    mesh.apply(text).fails(
        "6 things are wrong, and nothing was changed",
        "link cable: there is no workload or endpoint nobody",
        "workload a: the command 'no-such-program' is not there",
        "workload b: the command './no-such-file' is not there",
        "workload c: there is no network namespace no-such-namespace",
        "workload responder: there is a endpoint of that name",
        "workload nsmgr: a role of the mesh has that name",
    )


def test_an_endpoint_that_dies_at_once(mesh):
    """Its last words are in the error; its namespace, service and document are gone."""
    mesh.write(
        "dying.py",
        "from nsmesh.endpoints.base import Endpoint\n\nclass Dying(Endpoint):\n"
        "    def __init__(self, *a):\n        raise SystemExit('I never felt well')\n",
    )
    text = responder("dying", "dying").replace("icmp-responder", "./dying.py:Dying")
    begin = time.monotonic()
    path = mesh.write("dying.yaml", text)
    mesh.nsm("apply", "-f", str(path)).fails(
        "endpoint dying did not become ready", "I never felt well", "nsm logs dying"
    )
    assert time.monotonic() - begin < READY


@pytest.mark.parametrize(
    ("kind", "pieces"),
    [
        ("./no-such.py:Cls", ["there is no file", "no-such.py", "relative to the manifest's folder"]),
        (
            "no.such.module:Cls",
            ["endpoint x did not become ready", "the module no.such.module cannot be imported"],
        ),
        ("./classes.py:Other", ["classes.py has no class Other"]),
        ("./classes.py:Plain", ["is no endpoint"]),
        ("./broken.py:Cls", ["broken.py cannot be loaded: SyntaxError"]),
    ],
)
def test_types_that_cannot_be_used(mesh, kind, pieces):
    """Each way in which a class of the user's own cannot be had is told with its reason."""
    mesh.write(
        "classes.py",
        "from nsmesh.endpoints.base import Endpoint\nclass Mine(Endpoint): pass\nclass Plain: pass\n",
    )
    mesh.write("broken.py", "def (:\n")
    path = mesh.write("type.yaml", responder("x", "x").replace("icmp-responder", kind))
    mesh.nsm("apply", "-f", str(path)).fails(*pieces)


def test_bad_options_are_told_all_at_once(mesh):
    """Unknown options (with the nearest), values of the wrong kind, overlapping prefixes."""
    text = responder("x", "x").replace(
        "    cidr_prefix: 172.30.0.0/24",
        "    cidr_prefixes: 172.30.0.0/24\n    ipam_policy: rude\n    idle_timeout: soon",
    )
    mesh.apply(text).fails(
        "endpoint x did not become ready",
        "3 mistakes in the options of endpoint x",
        "option cidr_prefixes: it does not exist; did you mean cidr_prefix?",
        "option ipam_policy: 'rude' is neither polite nor strict",
        "option idle_timeout",
    )
    mesh.apply(responder("x", "x", '"[172.30.0.0/24],[172.30.0.0/25]"')).fails(
        "the prefixes 172.30.0.0/24 and 172.30.0.0/25 have addresses in common"
    )


def test_a_failed_change_leaves_what_was(mesh):
    """When the new version of an endpoint fails, the old one serves again."""
    mesh.apply(responder().replace("cidr_prefix", "cidr_prefixes")).fails("did you mean cidr_prefix?")
    until(lambda: mesh.row("endpoints", "responder")["state"] == "ready", 5)
    space = mesh.namespace("after")
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
    assert ping(space, "172.30.0.0")


def test_one_bad_document_leaves_the_others(mesh):
    """In one file each object is whole or not there: the good ones stay."""
    done = mesh.apply(documents(responder("bad", "bad", "nonsense"), workload()))
    done.fails("endpoint bad did not become ready", "nonsense")
    assert mesh.row("clients", "client")["state"] == "up"


def test_a_workload_whose_service_is_not_there_yet(mesh):
    """Apply says so and fails; the wish stays, and its wire and process come when the service does."""
    mesh.apply(workload(service="later"), "--no-wait").ok()
    until(lambda: mesh.row("clients", "client")["message"])
    assert "later is not found" in mesh.row("clients", "client")["message"]
    assert mesh.row("clients", "client")["pid"] is None
    mesh.apply(responder("late", "later", "172.26.0.0/24")).ok()
    until(lambda: mesh.row("clients", "client")["pid"])
    assert ping(f"{mesh.mesh}.client", "172.26.0.0")
    mesh.nsm("delete", "endpoint", "late").ok()
    mesh.nsm("delete", "workload", "client").ok()
    mesh.nsm("delete", "service", "later").ok()


def test_links_follow_their_ends(mesh):
    """A link is made, comes back when one of its ends is made anew, and goes with it."""
    mesh.apply(documents(workload("box"), LINK.format(other="box"))).ok()
    assert ping(f"{mesh.mesh}.box", "192.0.2.1")
    done = mesh.apply(workload("box", command="[sleep, '1000']")).ok()
    assert "link cable made" in done.out
    assert ping(f"{mesh.mesh}.box", "192.0.2.1")
    mesh.nsm("delete", "workload", "box").ok()
    assert mesh.row("links", "cable")["state"] == "down"
    assert mesh.links(f"{mesh.mesh}.responder") == []
    mesh.apply(workload("box")).ok()
    assert ping(f"{mesh.mesh}.box", "192.0.2.1")
    mesh.nsm("delete", "link", "cable").ok()
    assert mesh.links(f"{mesh.mesh}.box") == ["nsm-1"]


def test_deletes_of_what_is_not_there(mesh):
    """Unknown kinds (with the nearest), unknown names, kinds that cannot be deleted, nothing named."""
    mesh.nsm("delete", "endpont", "x").fails("there is nothing called 'endpont'", "did you mean 'endpoint'?")
    mesh.nsm("delete", "endpoint", "x").fails("there is no endpoint x", "nsm get endpoints")
    mesh.nsm("delete", "service", "x", "y").fails("there is no service x", "there is no service y")
    mesh.nsm("delete", "client", "x").fails("there is no client x", "nsm get clients")
    mesh.nsm("delete", "connection", "x-0").fails("there is no connection x-0")
    mesh.nsm("delete", "forwarder", "x").fails("forwarders cannot be deleted", "services, endpoints")
    mesh.nsm("delete").fails("nsm delete endpoint firewall", code=2)


def test_what_a_workload_leaves_behind_ends_with_it(mesh):
    """A daemon that a workload put into the background, in a session of its own, ends with its namespace."""
    mesh.apply(workload("box", command="[sh, -c, 'setsid --fork sleep 4000; exec tail -f /dev/null']")).ok()
    from nsmesh.standalone import processes as live

    space = f"/run/netns/{mesh.mesh}.box"

    def strays():
        found = live.inside(space)
        with contextlib.suppress(OSError):  # the one that forked has ended meanwhile
            return [one for one in found if Path(f"/proc/{one.pid}/comm").read_text() == "sleep\n"]

    (stray,) = until(strays)
    mesh.nsm("delete", "workload", "box").ok()
    assert not live.alive(stray)
