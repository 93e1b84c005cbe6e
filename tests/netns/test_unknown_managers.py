"""A registry that names managers of other nodes whom nobody knows: silent, refusing, without an address."""

import asyncio
import signal

import node_lab
import pytest
import vxlan_lab

from nsmesh.model.messages import NetworkServiceEndpoint

pytestmark = [pytest.mark.root, pytest.mark.timeout(150)]

UNKNOWN = {
    "silent": "tcp://192.0.2.99:5001",
    "refusing": "tcp://192.0.2.2:5999",
    "nameless": "tcp://nsmgr.nodes.invalid:5001",
}
"""By endpoint, managers that were never there: nobody has the address, the port, or the name."""
ANSWERS = (
    r"silent: .*tcp://192\.0\.2\.99:5001",
    r"refusing: .*tcp://192\.0\.2\.2:5999.*refused",
    r"nameless: the host of tcp://nsmgr\.nodes\.invalid:5001 has no address",
)
"""What is said of each."""


async def told(mesh):
    """Register their endpoints at the registry itself, in front of that of a manager that is there."""
    entries = (
        NetworkServiceEndpoint(name=name, network_service_names=["s"], url=url)
        for name, url in UNKNOWN.items()
    )
    await node_lab.register(mesh, "registry", entries)


def test_managers_that_nobody_knows_are_named_and_passed_over():
    """Alone, each is named with what came of it; beside a manager that is there, clients get their wires."""
    with node_lab.Mesh() as mesh:
        mesh.roles()
        mesh.endpoint(2)
        asyncio.run(told(mesh))
        for number in range(len(UNKNOWN) + 1):  # in turn: each is the first one once
            mesh.client(1, f"nsc{number}", NSM_NETWORK_SERVICES=f"kernel://s/nsm-{number}")
        for number in range(len(UNKNOWN) + 1):
            mesh.until(f"nsc{number}", "all wires are up")
            assert "request failed" not in mesh.log(
                f"nsc{number}"
            )  # it took one Request, within its deadline
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0")

        node_lab.end(mesh.programs["nse2"], signal.SIGTERM)
        mesh.client(1, "late", NSM_NETWORK_SERVICES="kernel://s/late")
        mesh.until("late", "request failed")
        for answer in ANSWERS:
            mesh.until("late", answer)
