"""An underlay that is narrower than its links say: found out, told, and wires that fit."""

import asyncio
import subprocess
import time
from pathlib import Path as File

import datapath_lab as lab
import node_lab
import pytest
import vxlan_lab

from nsmesh.core.paths import Fit
from nsmesh.datapath.path_mtu import PathMtus
from nsmesh.datapath.underlay import Underlay

pytestmark = pytest.mark.root


def narrow(space, size, more=""):
    """Have a node lose what is larger, without a word, as a network behind its link would.

    TCP finds its own way: it is told what fits at its start.
    """
    rules = f"""table netdev narrow {{
      chain c {{
        type filter hook ingress device "under" priority 0
        meta l4proto != tcp meta length > {size} drop
        {more}
      }}
    }}
    """
    argv = ["ip", "netns", "exec", File(space).name, "nft", "-f", "-"]
    subprocess.run(argv, check=True, input=rules, text=True)


async def towards(found, family=4, **more):
    underlay = Underlay(vxlan_lab.UNDERLAY[family][0], node=found.a)
    return await PathMtus(underlay, node=found.a, **more).towards(vxlan_lab.UNDERLAY[family][1])


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("size", [1499, 1400, 1333, 1281])
def test_the_largest_packet_that_passes_is_found(family, size):
    """To the byte, in both IP versions, within a second."""
    with vxlan_lab.nodes(1500, family) as found:
        assert any(vxlan_lab.pings(found.a, vxlan_lab.UNDERLAY[family][1]) for _ in range(5))
        narrow(found.b, size)
        began = time.monotonic()
        assert asyncio.run(towards(found, family)) == Fit(vxlan_lab.UNDERLAY[family][1], size, 1500)
        assert time.monotonic() - began < 2


def test_an_address_of_the_other_family_is_reached_from_the_same_link():
    """As for segment routing where the tunnel address is IPv4: our IPv6 address of that link is taken."""
    with vxlan_lab.nodes(1500, 6) as found:
        lab.run(found.a, "ip", "address", "add", "192.0.2.1/24", "dev", "under")
        assert any(vxlan_lab.pings(found.a, vxlan_lab.UNDERLAY[6][1]) for _ in range(5))
        narrow(found.b, 1400)
        paths = PathMtus(Underlay("192.0.2.1", node=found.a), node=found.a)
        assert asyncio.run(paths.towards(vxlan_lab.UNDERLAY[6][1])).path == 1400


def test_a_wide_path_takes_one_echo():
    """It is found at once, jumbo frames too, and remembered; a link that changes is tried again."""

    async def main(found):
        paths = PathMtus(Underlay("192.0.2.1", node=found.a), node=found.a)
        began = time.monotonic()
        assert (await paths.towards("192.0.2.2")).lacking == 0
        assert time.monotonic() - began < 0.2
        narrow(found.b, 1400)
        assert await paths.towards("192.0.2.2") == Fit("192.0.2.2", 9000, 9000)
        paths._known.clear()
        both = await asyncio.gather(paths.towards("192.0.2.2"), paths.towards("192.0.2.2"))
        assert both == [Fit("192.0.2.2", 1400, 9000)] * 2
        assert str(both[0]) == "1400 of 9000 bytes to 192.0.2.2"
        assert both[0].lacking == 7600

    with vxlan_lab.nodes(9000) as found:
        asyncio.run(main(found))


def test_a_silent_node_is_taken_to_be_reached():
    """Nobody answers echoes, or there is no such node: the link's MTU counts, after a quarter of a second."""
    with vxlan_lab.nodes() as found:
        narrow(found.b, 1400, "ip protocol icmp drop")
        began = time.monotonic()
        assert asyncio.run(towards(found)) == Fit("192.0.2.2", 1500, 1500)
        assert time.monotonic() - began < 1


def test_lost_echoes_do_not_narrow_a_path():
    """One in ten is lost on the way: the path is as wide as it is."""
    with vxlan_lab.nodes() as found:
        narrow(found.b, 1500, "numgen random mod 10 == 0 drop")
        for _ in range(5):
            assert asyncio.run(towards(found)).lacking == 0


@pytest.mark.timeout(60)
def test_wires_over_a_narrow_underlay_fit():
    """Both ends get the smaller MTU, packets of just that size pass, and the forwarder's log says why."""
    with node_lab.Mesh() as mesh:
        for space in mesh.spaces.values():
            narrow(space, 1400)
        mesh.roles()
        mesh.endpoint(2)
        mesh.client(1)
        mesh.until("nsc", "all wires are up")
        mesh.until("fwd2", "narrower than its link says")
        assert lab.link(mesh.pods[1], "nsm-1")["mtu"] == 1350
        (far,) = lab.names(mesh.pods[2])
        assert lab.link(mesh.pods[2], far)["mtu"] == 1350
        assert vxlan_lab.pings(mesh.pods[1], "10.9.2.0", 1350 - 28)
        assert not vxlan_lab.pings(mesh.pods[1], "10.9.2.0", 1350 - 27)
