import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.core.errors import Conflict, Invalid, NotFound, Unavailable
from nsmesh.core.virtual import run
from nsmesh.datapath.base import CrossConnect, Datapath, KernelPort, TunnelTaken, VxlanPort
from nsmesh.datapath.fake import FakeDatapath, FakeKernel

A, B, C = "/run/netns/a", "/run/netns/b", "/run/netns/c"


def wire(wire_id="1", a=(A, "nsm-1"), b=(B, "nse-1"), **port):
    return CrossConnect(wire_id, KernelPort(*a, **port), KernelPort(*b))


def test_it_keeps_the_promises_of_a_driver():
    """Created, unchanged, changed, removed: outcomes as the port says, and no change where none is due."""

    async def main():
        datapath: Datapath = FakeDatapath(kernel := FakeKernel())
        first = await datapath.apply(wire())
        assert first.outcome == "created"
        changes = kernel.changes
        assert (await datapath.apply(wire())).outcome == "unchanged"
        assert kernel.changes == changes
        changed = await datapath.apply(wire(mtu=1400))
        assert (changed.outcome, changed.a_mac) == ("changed", first.a_mac)
        assert kernel.linked(A, B)
        assert kernel.peer(A, "nsm-1").netns == B
        await datapath.remove("1")
        await datapath.remove("1")
        assert await datapath.has() == []

    run(main())


def test_a_restarted_driver_adopts_what_exists():
    """A new driver on the same kernel changes nothing, and sweeps what nobody owns."""

    async def main():
        kernel = FakeKernel()
        for number in range(3):
            await FakeDatapath(kernel).apply(wire(str(number), (A, f"c{number}"), (B, f"e{number}")))
        changes = kernel.changes
        datapath = FakeDatapath(kernel)
        assert (await datapath.apply(wire("0", (A, "c0"), (B, "e0")))).outcome == "unchanged"
        assert kernel.changes == changes
        gone = await datapath.sweep(["0", "2"])
        assert {existing.id for existing in gone} == {"1"}
        assert set(kernel.wires()) == {"0", "2"}

    run(main())


def test_a_moved_end_replaces_the_wire():
    """Another namespace for an end: the old interface is gone, the new one is there."""

    async def main():
        datapath = FakeDatapath(kernel := FakeKernel())
        await datapath.apply(wire())
        assert (await datapath.apply(wire(b=(C, "nse-1")))).outcome == "changed"
        assert set(kernel.interfaces) == {(A, "nsm-1"), (C, "nse-1")}

    run(main())


def test_names_are_refused_as_the_kernel_would():
    """A name that another wire has is a Conflict, a missing namespace NotFound, a bad name Invalid."""

    async def main():
        datapath = FakeDatapath(FakeKernel({A, B}))
        await datapath.apply(wire())
        with pytest.raises(Conflict):
            await datapath.apply(wire("2", b=(B, "other")))
        with pytest.raises(NotFound):
            await datapath.apply(wire("3", a=(C, "x"), b=(B, "y")))
        with pytest.raises(Invalid):
            await datapath.apply(wire("4", a=(A, "x" * 16), b=(B, "y")))
        assert {existing.id for existing in await datapath.has()} == {"1"}

    run(main())


def test_faults_are_injected_and_used_up():
    """fail() hits the next calls of its verb and no other; the hook runs before and may wait."""

    async def main():
        datapath = FakeDatapath()
        seen = []

        async def before(verb, wire_id):
            seen.append((verb, wire_id))
            await asyncio.sleep(5)

        datapath.before = before
        datapath.fail("apply", Unavailable("no"), times=2)
        for _ in range(2):
            with pytest.raises(Unavailable):
                await datapath.apply(wire())
        assert datapath.kernel.interfaces == {}
        await datapath.apply(wire())
        assert datapath.calls["apply"] == 3
        assert seen == [("apply", "1")] * 3
        assert asyncio.get_running_loop().time() == 15

    run(main())


def test_a_namespace_that_vanishes_takes_its_wires_along():
    """Both ends of a wire go with either namespace; other wires stay."""

    async def main():
        datapath = FakeDatapath(kernel := FakeKernel())
        await datapath.apply(wire())
        await datapath.apply(wire("2", (B, "x"), (C, "x")))
        kernel.delete_netns(A)
        assert set(kernel.interfaces) == {(B, "x"), (C, "x")}

    run(main())


netnses = st.sampled_from([A, B, C])
steps = st.lists(
    st.tuples(st.sampled_from("auds"), st.integers(0, 3), netnses, netnses),
    max_size=30,
)


@given(steps)
def test_any_history_leaves_whole_wires_only(history):
    """After any sequence of applies, removals and sweeps each wire has two ends and an owner."""

    async def main():
        datapath = FakeDatapath(kernel := FakeKernel())
        wanted = {}
        for verb, number, a, b in history:
            wire_id = str(number)
            if verb in "au":
                asked = wire(wire_id, (a, f"c{number}"), (b, f"e{number}"))
                await datapath.apply(asked)
                wanted[wire_id] = asked
            elif verb == "d":
                await datapath.remove(wire_id)
                wanted.pop(wire_id, None)
            else:
                await datapath.sweep(wanted)
            assert len(kernel.interfaces) == 2 * len(wanted)
            assert {key: (x.port, y.port) for key, (x, y) in kernel.wires().items()} == {
                key: (value.a, value.b) for key, value in wanted.items()
            }

    run(main())


def test_a_tunnel_belongs_to_one_wire_of_a_node():
    """A VNI is unique at its port: another wire is refused, and the same wire changes it in place."""

    async def main():
        datapath = FakeDatapath(kernel := FakeKernel())
        tunnel = VxlanPort(7, "192.0.2.1", "192.0.2.2")
        near = CrossConnect("1", KernelPort(A, "nsm-1"), tunnel)
        applied = await datapath.apply(near)
        assert (applied.outcome, bool(applied.a_mac), applied.b_mac) == ("created", True, "")
        assert (await datapath.apply(near)).outcome == "unchanged"
        assert kernel.wire("1") is None
        assert [end.port.name for end in kernel.ends("1")] == ["nsm-1"]
        other = CrossConnect("2", tunnel, KernelPort(B, "nse-1"))
        with pytest.raises(TunnelTaken):
            await datapath.apply(other)
        changed = CrossConnect("1", near.a, VxlanPort(8, "192.0.2.1", "192.0.2.2"))
        assert (await datapath.apply(changed)).outcome == "changed"
        applied = await datapath.apply(other)
        assert (applied.a_mac, bool(applied.b_mac)) == ("", True)
        kernel.delete_netns(A)
        assert set(kernel.tunnels) == {"2"}
        await datapath.remove("2")
        assert kernel.tunnels == {}

    run(main())


def test_a_wire_of_a_replaced_forwarder_is_taken_over():
    """It keeps its interfaces and gets the new id; one that is not the very same stays whose it is."""

    async def scenario():
        kernel = FakeKernel()
        old = wire("old")
        await FakeDatapath(kernel).apply(old)
        datapath = FakeDatapath(kernel)
        index = kernel.ends("old")[0].index
        with pytest.raises(Conflict):
            await datapath.apply(replace(old, id="new"))
        applied = await datapath.apply(replace(old, id="new", formerly="old"))
        assert applied.outcome == "unchanged"
        assert kernel.ends("new")[0].index == index
        assert not kernel.ends("old")

    asyncio.run(scenario())
