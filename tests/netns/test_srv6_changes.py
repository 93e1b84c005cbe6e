"""Wires by segment routing: restarts, changes, and where they cannot be made."""

import errno
from dataclasses import replace

import datapath_lab as lab
import pytest
import tunnel_lab
from srv6_lab import MARKS, OURS, changes, ip, pings, run, snapshot, wires
from vxlan_lab import both, closed

from nsmesh.datapath import offloads, segments
from nsmesh.datapath.apart import ApartDatapath
from nsmesh.datapath.base import TunnelRefused, TunnelTaken
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import INTERFACE, leaks
from nsmesh.datapath.segments import SegmentDatapath

pytestmark = MARKS


def test_a_restarted_driver_takes_it_over_and_sweeps():
    """Nothing changes, not even the route; what nobody owns goes, and is told as a leak before."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second, owner="srv6-test")
        stands = snapshot(found.a)
        again = SegmentDatapath(node=found.a, owner="srv6-test", namespaces=lambda: [found.pod_a])
        assert {item.id for item in await again.has()} == {first.id}
        with changes(found.a) as heard:
            assert (await again.apply(first)).outcome == "unchanged"
        assert heard() == ""
        assert snapshot(found.a) == stands
        assert pings(found.pod_a, "10.0.1.2")
        group = group_of("srv6-test")
        assert leaks([found.a, found.pod_a], {group: {first.id}}, tables=()) == []
        told = leaks([found.a, found.pod_a], {group: ()}, tables=())
        assert [(leak.kind, leak.owner) for leak in told] == [(INTERFACE, first.id)] * 2
        last = SegmentDatapath(node=found.a, owner="srv6-test", namespaces=lambda: [found.pod_a])
        assert {item.id for item in await last.sweep([])} == {first.id}
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        assert ip(found.a, OURS) == ""
        await closed(here, there, again, last)

    run(main)


def test_a_forwarder_of_another_name_takes_it_over():
    """With the id of its predecessor the same interfaces, program and route go on, under the new id."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second, owner="one")
        indexes, routes, program = snapshot(found.a)
        successor = SegmentDatapath(node=found.a, owner="two", namespaces=lambda: [found.pod_a])
        applied = await successor.apply(replace(first, id="new", formerly=first.id))
        assert applied.outcome == "changed"
        again = snapshot(found.a)
        assert set(again[0].values()) == set(indexes.values())
        assert set(again[0]) == {"under", segments.name_of("new")}
        old, new = segments.name_of(first.id), segments.name_of("new")
        assert (again[1], again[2]) == (routes.replace(old, new), program)
        assert {existing.id for existing in await successor.has()} == {"new"}
        assert pings(found.pod_a, "10.0.1.2")
        await successor.remove("new")
        await successor.drain()
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        await closed(here, there, successor)

    run(main)


def test_it_is_made_again_after_its_end_was_deleted():
    """Whoever deletes the interface in the pod, or the end in the node, gets it back with its segments."""

    async def main(found):
        first, second = wires(found)
        here, there = found.drivers()
        here.watch(lambda _: None)
        await there.apply(second)
        await here.apply(first)
        for place, name in ((found.pod_a, "nsm-1"), (found.a, segments.name_of(first.id))):
            lab.run(place, "ip", "link", "del", name)
            assert (await here.restore(first.id)).outcome == "created"
            assert pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)


def test_another_node_or_identifier_is_another_wire():
    """A change of what the two have agreed on is made in place; the old identifier leads nowhere."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        other = replace(first, b=replace(first.b, local_sid="fd5e::77"))
        before = lab.names(found.a)
        await here.apply(other)
        assert lab.names(found.a) == before
        assert ip(found.a, OURS).startswith("fd5e::77 ")
        assert not pings(found.pod_a, "10.0.1.2", 1)
        await there.apply(replace(second, a=replace(second.a, remote_sid="fd5e::77")))
        assert pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)


def test_an_identifier_that_is_taken_is_told():
    """TunnelTaken: the two nodes choose another one; nothing is left, and the first wire stays."""

    async def main(found):
        first, second = wires(found)
        here, there = await both(found, first, second)
        third, _ = wires(found, number=2)
        stands = snapshot(found.a)
        with pytest.raises(TunnelTaken, match=first.b.local_sid):
            await here.apply(replace(third, b=replace(third.b, local_sid=first.b.local_sid)))
        assert snapshot(found.a) == stands
        assert lab.names(found.pod_a) == {"nsm-1"}
        assert (await here.apply(third)).outcome == "created"
        assert pings(found.pod_a, "10.0.1.2")
        await closed(here, there)

    run(main)


@pytest.mark.parametrize("trouble", ["router", "no way", "address gone", "no offloads"])
def test_where_it_is_not_possible_the_next_mechanism_is_tried(trouble, monkeypatch):
    """TunnelRefused says why, and nothing is left in node or pod."""
    said = {
        "router": "is not on the link of 2001:db8::1, and routers",
        "no way": "is not on the link of 2001:db8::1",
        "address gone": "the address 2001:db8::9 of SRV6 wires is on no link",
        "no offloads": "cannot be led to their segments: Operation not supported",
    }

    def none(name):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    async def main(found):
        first, _ = wires(found)
        port = first.b
        if trouble == "router":
            ip(found.a, "-6 route add 2001:db8:1::/64 via 2001:db8::2")
            port = replace(port, remote="2001:db8:1::1")
        elif trouble == "no way":
            port = replace(port, remote="2001:db8:2::1")
        elif trouble == "address gone":
            port = replace(port, local="2001:db8::9")
        else:
            monkeypatch.setattr(segments, "cut_before_sending", none)
        here, there = found.drivers()
        with pytest.raises(TunnelRefused, match=said[trouble]):
            await here.apply(replace(first, b=port))
        assert (lab.names(found.pod_a), lab.names(found.a)) == (set(), {"under"})
        await closed(here, there)

    run(main)


def test_a_wire_changes_its_mechanism_both_ways():
    """From VXLAN to SRV6 and back, also with tunnels that end in the node: nothing of the other is left."""

    async def main(found):
        for kind in (SegmentDatapath, ApartDatapath):
            here, there = kind(node=found.a, owner="a"), kind(node=found.b, owner="b")
            vxlan, srv6 = tunnel_lab.wires(found, "VXLAN", family=6), wires(found)
            await here.apply(vxlan[0])
            await there.apply(vxlan[1])
            stood = lab.names(found.a)
            for pair in (srv6, vxlan):
                await here.apply(pair[0])
                await there.apply(pair[1])
                await here.drain()
                assert pings(found.pod_a, "10.0.1.2")
                assert lab.names(found.pod_a) == {"nsm-1"}
                if pair is srv6:
                    assert lab.names(found.a) == {"under", segments.name_of(srv6[0].id)}
            assert lab.names(found.a) == stood
            for driver, pair in ((here, vxlan[0]), (there, vxlan[1])):
                await driver.remove(pair.id)
                await driver.drain()
            assert lab.names(found.a) == {"under"}
            await closed(here, there)

    run(main)


def test_segments_are_cut_by_the_sender():
    """All offloads of segmentation are off at the interface, and no others."""

    async def main(found):
        first, _ = wires(found)
        here, there = found.drivers()
        await here.apply(first)
        left = lab.in_thread(found.pod_a, lambda: offloads.segmentation("nsm-1"))
        assert left == set()
        assert lab.in_thread(found.pod_a, lambda: offloads.segmentation("lo"))
        await closed(here, there)

    run(main)
