"""SRV6 wires between nodes with a router between them, which leads a prefix of identifiers to each."""

import asyncio

import datapath_lab as lab
import pytest
import srv6_lab
import tunnel_lab
import vxlan_lab
from srv6_lab import PREFIXES, ROUTED, ip, pings, routed
from vxlan_lab import both, closed

from nsmesh.datapath.base import TunnelRefused
from nsmesh.mechanisms.srv6 import Srv6

pytestmark = srv6_lab.MARKS


def wires(found, prefixes=PREFIXES):
    near, far = (
        Srv6(own, link_mtu=lambda: 1500, prefix=prefix) for own, prefix in zip(ROUTED, prefixes, strict=True)
    )
    return tunnel_lab.wires(found, "SRV6", family=6, near=near, far=far)


def run(main):
    with routed() as found:
        return asyncio.run(main(found))


def test_a_wire_through_a_router():
    """Both families and the whole MTU, both ways; a restarted driver changes nothing; nothing is left."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        for pod, addresses in (
            (found.pod_a, ("10.0.1.2", "fd00:1::2")),
            (found.pod_b, ("10.0.1.1", "fd00:1::1")),
        ):
            for address in addresses:
                assert pings(pod, address), address
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", first.b.mtu - 28)
        assert not vxlan_lab.pings(found.pod_a, "10.0.1.2", first.b.mtu - 27)
        assert lab.run(found.a, "sysctl", "-n", "net.ipv6.conf.all.forwarding").strip() == "0"
        before = srv6_lab.snapshot(found.a)
        again, _ = found.drivers()
        await again.has()
        assert (await again.apply(first)).outcome == "unchanged"
        assert srv6_lab.snapshot(found.a) == before
        await again.remove(first.id)
        await again.drain()
        assert lab.names(found.a) == {"under"}
        await closed(here, there, again)

    run(main)


def test_another_router_is_taken_at_the_next_refresh():
    """The same wire, without a new interface."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        assert pings(found.pod_a, "10.0.1.2")
        before = srv6_lab.snapshot(found.a)
        ip(found.a, "-6 route del default")
        ip(found.a, "-6 route add default via 2001:db8:a::fe")
        await here.apply(first)
        links, routes, program = srv6_lab.snapshot(found.a)
        assert (links, routes) == before[:2]
        assert "2001:db8:a::fe" in program
        assert "2001:db8:a::ff" not in program
        assert pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)


@pytest.mark.parametrize(
    ("prefixes", "change", "says"),
    [
        ((PREFIXES[0], ""), "", "is not on the link of 2001:db8:a::1, and routers"),
        (PREFIXES, "route del default", "no router leads to 2001:db8:5e:b:"),
        (PREFIXES, f"route add unreachable {PREFIXES[1]}", "no router leads to 2001:db8:5e:b:"),
    ],
)
def test_where_no_router_leads_to_the_other_node_the_next_mechanism_is_tried(prefixes, change, says):
    """TunnelRefused names what to do, and nothing is left in node or pod."""

    async def main(found):
        if change:
            ip(found.a, f"-6 {change}")
        first, _ = wires(found, prefixes)
        here, there = found.drivers()
        with pytest.raises(TunnelRefused, match=says) as caught:
            await here.apply(first)
        assert "NSM_SRV6_PREFIX" in caught.value.remedy
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        await closed(here, there)

    run(main)
