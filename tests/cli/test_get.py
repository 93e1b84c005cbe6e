"""get, describe, status: every kind in every form, and watches."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from mesh_lab import NSM, finish, nsm, responder, until

pytestmark = pytest.mark.root

KINDS = ("services", "endpoints", "clients", "connections", "managers", "forwarders", "links", "events")
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"


def documented():
    """Return the fields of each section of the reference page, in order."""
    fields, section = {}, ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            section = line.strip("# ")
        elif line.startswith("| `"):
            fields.setdefault(section, []).append(line.split("`")[1])
    return fields


@pytest.mark.parametrize("kind", KINDS)
def test_json_has_the_documented_fields(mesh, kind):
    """Each object of a kind has exactly the fields of docs/reference/json.md, in that order."""
    rows = mesh.get(kind)
    assert rows
    for row in rows:
        assert list(row) == documented()[kind]


def test_nested_json_has_the_documented_fields(mesh):
    """So have hops, the status with what is in it, and the findings of the doctor."""
    fields = documented()
    [row] = mesh.get("connections")
    own = {"client_interface", "server_interface"}
    for hop in row["hops"]:
        assert [name for name in hop if name not in own] == fields["hops"]
    assert any(own <= set(hop) for hop in row["hops"])
    status = mesh.status()
    assert list(status) == fields["status"]
    assert list(status["endpoints"][0]) == fields["endpoints"]
    assert list(status["clients"][0]) == fields["clients"]
    assert list(status["roles"][0]) == ["role", "name", "state", "node", "pid", "url"]
    for finding in mesh.nsm("doctor", "-o", "json").json():
        assert list(finding) == fields["doctor"]


@pytest.mark.parametrize("kind", KINDS)
def test_forms(mesh, kind):
    """YAML says what JSON says; a table has a line for each; wide has more columns."""
    rows = mesh.get(kind)
    same = yaml.safe_load(mesh.nsm("get", kind, "-o", "yaml").ok().out)
    timeless = [{k: v for k, v in row.items() if k not in {"age", "expires", "hops"}} for row in rows]
    assert [{k: v for k, v in row.items() if k not in {"age", "expires", "hops"}} for row in same] == timeless
    table = mesh.nsm("get", kind).ok().out.splitlines()
    wide = mesh.nsm("get", kind, "-o", "wide").ok().out.splitlines()
    assert len(table) == len(wide) == len(rows) + 1
    assert table[0] == table[0].upper()
    assert len(wide[0].split("  ")) > len(table[0].split("  "))
    assert "\x1b" not in "".join(table)


def test_values(mesh):
    """The rows say what is there: the whole chain is one connection, with all its hops and labels."""
    [row] = mesh.get("connections")
    manager, forwarder = f"nsmgr-{mesh.mesh}", f"forwarder-{mesh.mesh}"
    assert row["path"] == ["box", manager, forwarder, "guard", manager, forwarder, "responder"]
    assert [hop["index"] for hop in row["hops"]] == list(range(7))
    assert row["labels"] == {"tier": "gold"}
    assert (row["client"], row["service"], row["interface"], row["state"]) == (
        "box",
        "guarded",
        "nsm-1",
        "up",
    )
    assert mesh.row("managers", manager)["connections"] == 1
    assert mesh.row("forwarders", forwarder)["wires"] == 2
    assert mesh.row("links", "cable")["addresses"] == [["192.0.2.1/30"], ["192.0.2.2/30"]]
    assert mesh.row("services", "guarded")["rules"] == ["app=guard -> app=responder", "any -> app=guard"]
    assert mesh.row("clients", "box")["asks"] == ["kernel://guarded/nsm-1?tier=gold"]


def test_aliases_and_mistakes(mesh):
    """Kinds have short names; a mistake gets the nearest kind; an unknown name says how to list."""
    for alias, kind in (
        ("nse", "endpoints"),
        ("svc", None),
        ("wires", "connections"),
        ("Service", "services"),
    ):
        done = mesh.nsm("get", alias, "-o", "json")
        if kind:
            assert len(done.ok().json()) == len(mesh.get(kind))
        else:
            done.fails("there is nothing called 'svc'", "known: services, endpoints")
    mesh.nsm("get", "conections").fails("did you mean 'connections'?")
    mesh.nsm("get", "endpoint", "gard").fails("there is no endpoint called gard", "nsm get endpoints")
    mesh.nsm("describe", "client", "bx").fails("there is no client called bx", "nsm get clients")
    mesh.nsm("get", "endpoints", "-o", "xml").fails("'xml' is not one of", code=2)


def test_describe(mesh):
    """All that is known of an object; lists on lines of their own, structures as YAML."""
    text = mesh.nsm("describe", "connection", "box-0").ok().out
    for piece in ("id:", "box-0", "hops:", "INDEX  NAME", "guard", "KERNEL/nsm-1"):
        assert piece in text
    text = mesh.nsm("describe", "service", "guarded").ok().out
    assert "    - source_selector:" in text
    assert "{'" not in text
    for kind, name in (("endpoint", "guard"), ("link", "cable"), ("workload", "box")):
        assert "name:" in mesh.nsm("describe", kind, name).ok().out


def test_events_of_one_connection(mesh):
    """A name narrows events to those of a connection."""
    rows = mesh.get("events", "box-0")
    assert rows
    assert {row["connection"] for row in rows} == {"box-0"}


class Watch:
    def __init__(self, mesh, kind, style="table"):
        self.process = mesh.process("get", kind, "-w", "-o", style)

    def line(self):
        return self.process.stdout.readline().rstrip("\n")

    def end(self):
        self.process.send_signal(2)
        finish(self.process).fails("interrupted", code=130)


def test_watches(mesh):
    """A watch prints what is there, then what is new, what changes and what goes; and not what only ages."""
    space = mesh.namespace("w")
    watches = {
        kind: Watch(mesh, kind, "json") for kind in ("connections", "clients", "services", "endpoints")
    }
    table = Watch(mesh, "connections")
    first = {kind: json.loads(watch.line()) for kind, watch in watches.items()}
    assert first["connections"] == {
        "deleted": False,
        "object": mesh.get("connections")[0] | {"age": first["connections"]["object"]["age"]},
    }
    assert table.line().startswith("CLIENT")
    assert table.line().startswith("box")
    for kind in ("endpoints",):
        watches[kind].line()
    mesh.nsm("connect", "kernel://guarded/nsm-2", "--netns", space, "--name", "w").ok()
    row = json.loads(watches["connections"].line())
    assert (row["deleted"], row["object"]["id"]) == (False, "w-0")
    assert table.line().startswith("w  ")
    mesh.nsm("disconnect", "w-0").ok()
    assert _until(watches["connections"], lambda row: row["deleted"])["object"]["id"] == "w-0"
    assert _until_text(table, lambda line: line.endswith("(deleted)")).startswith("w  ")
    assert _until(watches["clients"], lambda row: row["deleted"])["object"]["name"] == "w"
    mesh.apply(responder("late", "late", "172.26.0.0/24")).ok()
    assert (
        _until(watches["endpoints"], lambda row: row["object"]["state"] == "ready")["object"]["name"]
        == "late"
    )
    mesh.nsm("delete", "endpoint", "late").ok()
    assert _until(watches["endpoints"], lambda row: row["deleted"])["object"]["name"] == "late"
    mesh.nsm("delete", "service", "late").ok()
    assert _until(watches["services"], lambda row: row["deleted"])["object"]["name"] == "late"
    for watch in (*watches.values(), table):
        watch.end()


def _until(watch, condition):
    return json.loads(_until_text(watch, lambda line: condition(json.loads(line))))


def _until_text(watch, condition):
    for _ in range(50):
        line = watch.line()
        if condition(line):
            return line
    raise AssertionError("it was not told")


def test_a_watch_of_events(mesh):
    """New events are printed as they come, once each."""
    watch = Watch(mesh, "events", "json")
    past = len(mesh.get("events"))
    for _ in range(past):
        watch.line()
    mesh.nsm("disconnect", "nobody-0").fails("no connection")
    assert json.loads(watch.line())["object"]["text"] == "there is no connection nobody-0"
    watch.end()


def test_output_is_for_pipes(mesh):
    """A reader that goes away is no error, and tables are not cut."""
    wide = mesh.process("get", "connections", "-o", "wide")
    head = subprocess.run(["head", "-c", "1"], stdin=wide.stdout, capture_output=True, check=True)
    assert head.stdout == b"C"
    wide.stdout.close()
    assert wide.wait(10) == 0, wide.stderr.read()
    assert max(map(len, mesh.nsm("get", "connections", "-o", "wide").ok().out.splitlines())) > 150


def test_a_reader_that_is_gone_already():
    """Nothing is said of it, and it is no failure."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*NSM, "version"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_quiet(mesh):
    """-q leaves results and errors, and nothing else."""
    space = mesh.namespace("q")
    quiet = ["-q", *mesh.options]
    assert nsm(*quiet, "connect", "kernel://guarded/nsm-1", "--netns", space).ok().text == ""
    assert nsm(*quiet, "disconnect", "--netns", space).ok().text == ""
    assert nsm(*quiet, "up").ok().text == ""
    assert nsm(*quiet, "get", "managers").ok().out
    nsm(*quiet, "get", "endpoint", "x").fails("error: there is no endpoint called x")
    until(lambda: len(mesh.get("connections")) == 1)
