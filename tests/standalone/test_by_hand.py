"""The roles by hand: each a process with NSM's variables, over unix sockets, no daemon anywhere."""

import os
import signal
import subprocess
import sys

import pytest
from mesh_lab import Lab, finish, nsm_process, ping, until

pytestmark = pytest.mark.root


def role(lab, *words, space="", **variables):
    """Start ``nsm run`` of a role with variables (NSM_ is put in front), in a namespace if one is given."""
    environment = os.environ | {f"NSM_{key.upper()}": value for key, value in variables.items()}
    inside = ["ip", "netns", "exec", space] if space else []
    argv = [*inside, sys.executable, "-m", "nsmesh.cli.main", "run", *words]
    log = (lab.root / f"{words[0]}.log").open("w")
    process = lab.start(*argv, env=environment, stderr=log, stdout=log)
    log.close()
    return process


@pytest.mark.parametrize("registry", ["registry-memory", "registry-sqlite"])
def test_four_roles_and_a_client(registry):
    """A wire comes up and carries packets; SIGTERM ends each process with code 0 and leaves nothing."""
    with Lab() as lab:
        sock = {name: f"unix://{lab.root}/{name}.sock" for name in ("registry", "nsmgr", "forwarder", "nse")}
        ours, theirs = lab.namespace("nsc"), lab.namespace("nse")
        processes = {
            "registry": role(lab, registry, listen_on=sock["registry"], database=str(lab.root / "r.db")),
            "nsmgr": role(lab, "nsmgr", name="m", listen_on=sock["nsmgr"], registry_url=sock["registry"]),
            "forwarder": role(
                lab, "forwarder", name="f", listen_on=sock["forwarder"], connect_to=sock["nsmgr"]
            ),
            "nse": role(
                lab, "nse", "icmp-responder", space=theirs, name="e", listen_on=sock["nse"],
                connect_to=sock["nsmgr"], service_names="ping", cidr_prefix="172.25.0.0/24",
            ),
            "nsc": role(
                lab, "nsc", space=ours, name="c", connect_to=sock["nsmgr"],
                network_services="kernel://ping/nsm-1",
            ),
        }  # fmt: skip
        until(lambda: "all wires are up" in (lab.root / "nsc.log").read_text(), 20, lambda: logs(lab))
        assert lab.links(ours) == ["nsm-1"]
        assert ping(ours, "172.25.0.0")
        for name in ("nsc", "nse", "forwarder", "nsmgr", "registry"):
            processes[name].send_signal(signal.SIGTERM)
            assert processes[name].wait(10) == 0, logs(lab)
        until(lambda: lab.links(ours) == lab.links(theirs) == [])
        assert "Traceback" not in logs(lab)


def logs(lab):
    return "\n".join(f"== {path.name}\n{path.read_text()}" for path in sorted(lab.root.glob("*.log")))


@pytest.mark.parametrize(
    ("words", "variables", "pieces"),
    [
        (
            ["nsmgr"],
            {"NSM_DIAL_TIMEOUT": "soon", "NSM_LOG_LEVEL": "INFO", "NSM_MAX_TOKEN_LIFETIME": "-"},
            ["2 settings cannot be used", "NSM_MAX_TOKEN_LIFETIME", "NSM_DIAL_TIMEOUT", "soon", "see --help"],
        ),
        (["nsc"], {}, ["NSM_NETWORK_SERVICES", "kernel://SERVICE/INTERFACE"]),
        (["nsc"], {"NSM_NETWORK_SERVICES": "kernal://x"}, ["NSM_NETWORK_SERVICES", "kernal"]),
        (
            ["nse", "icmp-responder"],
            {"NSM_CIDR_PREFIX": "10.0/"},
            ["NSM_CIDR_PREFIX: '10.0/' is no CIDR prefix"],
        ),
        (
            ["nse", "icmp-respond"],
            {"NSM_SERVICE_NAMES": "x"},
            ["there is no endpoint type", "icmp-responder?"],
        ),
        (["registry-memory"], {"NSM_LISTEN_ON": "http://x"}, ["http"]),
        (
            ["registry-sqlite"],
            {"NSM_LISTEN_ON": "unix:///tmp/x.sock", "NSM_DATABASE": "/proc/no/r.db"},
            ["/proc/no"],
        ),
    ],
)
def test_settings_that_cannot_be_used(words, variables, pieces):
    """All mistakes at once, each with its variable; exit code 1, no traceback."""
    process = nsm_process("run", *words, env={**os.environ, **variables})
    finish(process, 15).fails(*pieces)


def test_roles_are_listed_with_their_variables():
    """The help of each role names its variables with kind, default and meaning."""
    listing = subprocess.run(
        [sys.executable, "-m", "nsmesh.cli.main", "run", "forwarder", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for piece in (
        "NSM_CONNECT_TO",
        "NSM_LISTEN_ON",
        "NSM_LABELS",
        "SPIFFE_ENDPOINT_SOCKET",
        "default: 750ms",
    ):
        assert piece in listing
