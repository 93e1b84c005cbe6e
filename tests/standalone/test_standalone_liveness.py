"""spec.liveness: a wire that nobody tells of, and that lets no packets through, is found by looking."""

import subprocess

import pytest
from mesh_lab import Lab, documents, ping, responder, until

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

CLIENT = """
apiVersion: nsmesh/v1
kind: Workload
metadata: {{name: {name}, annotations: {{networkservicemesh.io: kernel://ping/nsm-1}}}}
spec: {{{liveness}}}
"""


def served_by(lab, client):
    return next((row["endpoint"] for row in lab.get("connections") if row["client"] == client), "")


def mute(lab, endpoint):
    """Have an endpoint answer nobody, though its interfaces stay as they are: it forgets who it is."""
    space = f"{lab.mesh}.{endpoint}"
    listed = subprocess.run(["ip", "-n", space, "-o", "link"], check=True, capture_output=True, text=True)
    for line in listed.stdout.splitlines():
        name = line.split()[1].partition("@")[0].strip(":")
        if name != "lo":
            subprocess.run(["ip", "-n", space, "link", "set", name, "arp", "off"], check=True)


def test_a_silent_endpoint_is_left_by_who_looks():
    """Who looks goes to the other endpoint; who does not stays, as nobody has told it anything."""
    with Lab() as lab:
        lab.up()
        lab.apply(responder("one", "ping")).ok()
        looks = CLIENT.format(name="looks", liveness="liveness: {interval: 100ms, timeout: 300ms, count: 2}")
        lab.apply(documents(looks, CLIENT.format(name="trusts", liveness=""))).ok()
        assert {served_by(lab, "looks"), served_by(lab, "trusts")} == {"one"}
        lab.apply(responder("two", "ping")).ok()
        mute(lab, "one")
        until(lambda: served_by(lab, "looks") == "two")
        assert ping(f"{lab.mesh}.looks", "172.30.0.0")
        assert served_by(lab, "trusts") == "one"
        lab.nsm("down").ok()
