"""Faults between two nodes for real: every role a process of its own, with an identity, in its namespace."""

import re
import signal

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab
from node_lab import until

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]

SLOW = '''
"""An endpoint that takes its time, and says when it was asked."""
import asyncio
from nsmesh.endpoints.base import Endpoint


class Slow(Endpoint):
    async def granted(self, connection):
        print("asked", flush=True)
        await asyncio.sleep(1)
'''
LIFE = 6
"""Seconds that what the first node vouches for lives."""


def reaches(mesh, number, address):
    return vxlan_lab.pings(mesh.pods[number], address)


def clean(mesh, *numbers):
    """Say whether nothing of any wire is left in these pods, and nothing but the underlay in their nodes."""
    return all(
        lab.names(mesh.pods[number]) == set() and lab.names(mesh.spaces[number]) == {"under"}
        for number in numbers
    )


def under(mesh, state):
    lab.run(mesh.spaces[2], "ip", "link", "set", "under", state)


def test_an_underlay_that_is_cut_in_mid_request():
    """The client hears within its deadline who is away; neither node keeps anything; then all is well.

    What the far node had made, and nobody heard of, goes with the tokens of who had asked for it.
    """
    with node_lab.Mesh() as mesh:
        life = {"NSM_MAX_TOKEN_LIFETIME": f"{LIFE}s"}
        mesh.registry()
        for number in (1, 2):
            mesh.manager(number, **(life if number == 1 else {}))
            mesh.forwarder(number, **(life if number == 1 else {}))
        for number in (1, 2):
            mesh.until_registered(f"fwd{number}")
        (mesh.folder / "functions.py").write_text(SLOW)
        mesh.endpoint(2, kind=f"{mesh.folder}/functions.py:Slow")
        client = mesh.client(1, **life)
        mesh.until("nse2", "asked")
        under(mesh, "down")
        mesh.until("nsc", "request failed")  # of the one that was asked when it was cut
        assert re.search(r"nse2: the connection to tcp://192\.0\.2\.2:5001 failed", mesh.log("nsc"))
        until(lambda: clean(mesh, 1), 5, lambda: f"node 1 has {lab.names(mesh.pods[1])}")
        until(lambda: clean(mesh, 2), LIFE + 6, lambda: f"node 2 has {lab.names(mesh.pods[2])}")
        under(mesh, "up")
        until(lambda: reaches(mesh, 1, "10.9.2.0"), 25, lambda: mesh.log("nsc")[-3000:])
        node_lab.end(client, signal.SIGTERM)
        until(lambda: clean(mesh, 1, 2), LIFE + 6)


def test_a_far_manager_that_is_frozen_is_named():
    """It takes the Request and never answers: the client hears who it is, and not only its own manager.

    On a busy machine it may take more than one try: a hop has a part of a second to say so
    before its own caller gives up.
    """
    with node_lab.Mesh() as mesh:
        mesh.roles()
        mesh.endpoint(2)
        client = mesh.client(1)
        mesh.until("nsc", "all wires are up")
        mesh.programs["nsmgr2"].send_signal(signal.SIGSTOP)
        try:
            mesh.client(1, "late", NSM_NETWORK_SERVICES="kernel://s/late", NSM_REQUEST_TIMEOUT="6s")
            mesh.until("late", r"nse2: .*tcp://192\.0\.2\.2:5001")
            assert lab.names(mesh.pods[1]) == {"nsm-1"}
            assert reaches(mesh, 1, "10.9.2.0")
        finally:
            mesh.programs["nsmgr2"].send_signal(signal.SIGCONT)
        mesh.until("late", "all wires are up")
        node_lab.end(client, signal.SIGTERM)
        node_lab.end(mesh.programs["late"], signal.SIGTERM)
        until(lambda: clean(mesh, 1, 2))


@pytest.mark.parametrize("victims", [("fwd2",), ("nsmgr2", "fwd2", "nse2")])
def test_a_far_node_whose_roles_are_killed_is_passed_over(victims):
    """New Requests are served by the next candidate, in one Request's time; what is dead is named."""
    with node_lab.Mesh() as mesh:
        mesh.roles()
        mesh.endpoint(2)
        mesh.client(1)
        mesh.until("nsc", "all wires are up")
        mesh.endpoint(1, NSM_REGISTER_SERVICE="false")
        for name in victims:
            node_lab.end(mesh.programs[name])
        for number in range(2):  # in turn: one of them would go to the dead node
            mesh.client(1, f"late{number}", NSM_NETWORK_SERVICES=f"kernel://s/late-{number}")
        for number in range(2):
            mesh.until(f"late{number}", "all wires are up")
            assert "request failed" not in mesh.log(f"late{number}")
        for number in range(2):
            assert lab.link(mesh.pods[1], f"late-{number}")["linkinfo"]["info_kind"] == "veth"
        assert reaches(mesh, 1, "10.9.1.0")
        if "nse2" not in victims:
            assert reaches(mesh, 1, "10.9.2.0")  # the wire that was there needs none of the dead


def test_both_nodes_begin_at_once():
    """Clients on both nodes ask for the other's endpoint at one moment: all are up, none is another's."""
    count = 8
    with node_lab.Mesh() as mesh:
        mesh.roles()
        for number, service in ((1, "one"), (2, "two")):
            mesh.endpoint(number, NSM_SERVICE_NAMES=service)
        clients = []
        for number, service in ((1, "two"), (2, "one")):
            wires = ",".join(f"kernel://{service}/w{number}-{wire}" for wire in range(count))
            clients.append(mesh.client(number, f"nsc{number}", NSM_NETWORK_SERVICES=wires))
        for number in (1, 2):
            mesh.until(f"nsc{number}", "all wires are up", seconds=30)
        numbers = {1: {}, 2: {}}
        for number in (1, 2):
            for name in lab.names(mesh.pods[number]):
                data = vxlan_lab.tunnel(mesh.pods[number], name)
                assert (data["local"], data["remote"]) == (node_lab.IPS[number - 1], node_lab.IPS[2 - number])
                numbers[number][data["id"]] = name
        assert len(numbers[1]) == len(numbers[2]) == 2 * count
        assert numbers[1].keys() == numbers[2].keys()
        for number in (1, 2):
            near = {vni for vni, name in numbers[number].items() if name.startswith(f"w{number}-")}
            assert len(near) == count
            assert len({vni % 2 for vni in near}) == 1
        for number, address in ((1, "10.9.2.0"), (2, "10.9.1.0")):
            assert reaches(mesh, number, address)
        for client in clients:
            node_lab.end(client, signal.SIGTERM)
        until(lambda: clean(mesh, 1, 2), 15)
        for number in (1, 2):
            assert not re.search(r'"level": "error"', mesh.log(f"fwd{number}"))
