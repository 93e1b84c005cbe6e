"""Tunnels that end in the node: the pod sees a veth and nothing else, and packets pass all the same."""

from dataclasses import replace

import datapath_lab as lab
import pytest
import tunnel_lab
import vxlan_lab
from vxlan_lab import run

from nsmesh.datapath.apart import ApartDatapath, names_of
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.model.tunnels import GrePort

pytestmark = pytest.mark.root


def drivers(found):
    return ApartDatapath(node=found.a, owner="a"), ApartDatapath(node=found.b, owner="b")


def kind(path, name):
    return lab.link(path, name).get("linkinfo", {}).get("info_kind")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("payload", ["IP", "ETHERNET"])
@pytest.mark.parametrize("tunnel", ["VXLAN", "GENEVE", "GRE"])
def test_the_pod_sees_a_veth_alone(tunnel, payload, family):
    """Both families pass up to the very MTU; pod, node and reach are as they shall be; nothing stays."""
    tunnel_lab.able(tunnel)

    async def main(found):
        near, far = tunnel_lab.plugins(tunnel, family, framed=[1, 2])
        first, second = tunnel_lab.wires(found, tunnel, family=family, payload=payload, near=near, far=far)
        here, there = drivers(found)
        applied = await here.apply(first)
        assert (applied.outcome, applied.a_mac, applied.b_mac) == ("created", vxlan_lab.NEAR_MAC, "")
        assert (await there.apply(second)).outcome == "created"
        mtu = first.b.mtu
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert kind(found.pod_a, "nsm-1") == "veth"
        assert lab.names(found.a) == {"under", *names_of(first.id)}
        device = {"GRE": {4: "gretap", 6: "ip6gretap"}[family]}.get(tunnel, tunnel.lower())
        assert kind(found.a, names_of(first.id)[1]) == device
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        assert vxlan_lab.pings(found.pod_b, "fd00:1::1")
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2", mtu - 28)
        assert not vxlan_lab.pings(found.pod_a, "10.0.1.2", mtu - 27)
        assert (await here.apply(first)).outcome == "unchanged"
        await here.remove(first.id)
        await here.drain()
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        await here.aclose()
        await there.aclose()

    run(main, family=family)


def test_a_restarted_driver_takes_it_over():
    """The same interfaces, packets pass, and what nobody owns is swept from the node too."""

    async def main(found):
        first, second = tunnel_lab.wires(found, "VXLAN")
        here, there = drivers(found)
        await here.apply(first)
        await there.apply(second)
        before = {name: lab.link(found.a, name)["ifindex"] for name in lab.names(found.a)}
        again = ApartDatapath(node=found.a, owner="a", namespaces=lambda: [found.pod_a])
        await again.has()
        assert (await again.apply(first)).outcome == "unchanged"
        assert {name: lab.link(found.a, name)["ifindex"] for name in lab.names(found.a)} == before
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        last = ApartDatapath(node=found.a, owner="a", namespaces=lambda: [found.pod_a])
        assert {item.id for item in await last.sweep([])} == {first.id}
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        for driver in (here, there, again, last):
            await driver.aclose()

    run(main)


def test_a_forwarder_of_another_name_takes_it_over():
    """With the id of its predecessor the same interfaces go on, under the new id."""

    async def main(found):
        first, second = tunnel_lab.wires(found, "VXLAN")
        here, there = drivers(found)
        await here.apply(first)
        await there.apply(second)
        before = {lab.link(found.a, name)["ifindex"] for name in lab.names(found.a)}
        successor = ApartDatapath(node=found.a, owner="c", namespaces=lambda: [found.pod_a])
        assert (await successor.apply(replace(first, id="new", formerly=first.id))).outcome == "changed"
        assert lab.names(found.a) == {"under", *names_of("new")}
        assert {lab.link(found.a, name)["ifindex"] for name in lab.names(found.a)} == before
        assert {existing.id for existing in await successor.has()} == {"new"}
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await successor.remove("new")
        await successor.drain()
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        for driver in (here, there, successor):
            await driver.aclose()

    run(main)


def test_it_is_made_again_after_its_end_was_deleted():
    """In the pod or in the node: the new end is led to the tunnel as the old one was."""

    async def main(found):
        first, second = tunnel_lab.wires(found, "VXLAN")
        here, there = drivers(found)
        here.watch(lambda _: None)
        await here.apply(first)
        await there.apply(second)
        for place, name in ((found.pod_a, "nsm-1"), (found.a, names_of(first.id)[0])):
            lab.run(place, "ip", "link", "del", name)
            assert (await here.restore(first.id)).outcome == "created"
            assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        await here.aclose()
        await there.aclose()

    run(main)


def test_another_tunnel_and_a_taken_one():
    """A wire that is to lead elsewhere does; one whose VNI is taken leaves nothing."""

    async def main(found):
        first, second = tunnel_lab.wires(found, "VXLAN")
        here, there = drivers(found)
        await here.apply(first)
        other = replace(first, b=replace(first.b, vni=first.b.vni + 2))
        await here.apply(other)
        assert vxlan_lab.tunnel(found.a, names_of(first.id)[1])["id"] == first.b.vni + 2
        await here.apply(first)
        await there.apply(second)
        assert vxlan_lab.pings(found.pod_a, "10.0.1.2")
        thief, _ = tunnel_lab.wires(found, "VXLAN", number=2)
        with pytest.raises(TunnelTaken):
            await here.apply(replace(thief, b=first.b))
        await here.drain()
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert lab.names(found.a) == {"under", *names_of(first.id)}
        await here.aclose()
        await there.aclose()

    run(main)


def test_bare_packets_do_not_end_in_the_node():
    """Such a tunnel is refused, so that the next mechanism is tried."""

    async def main(found):
        first, _ = tunnel_lab.wires(found, "VXLAN")
        here, there = drivers(found)
        with pytest.raises(TunnelRefused, match="bare packets"):
            await here.apply(replace(first, b=GrePort(1, "192.0.2.1", "192.0.2.2", ethernet=False)))
        await here.aclose()
        await there.aclose()

    run(main)
