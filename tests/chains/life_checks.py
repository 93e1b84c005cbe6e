"""The invariants of ``docs/invariants.md``: what holds at any time, at rest, and when all is closed."""

from __future__ import annotations

import asyncio
from collections import Counter

from life_mesh import CLIENTS, ENDPOINTS, MIDDLE, ROLES, begin_of

from nsmesh.core.audit import orphans
from nsmesh.core.begin import Begin
from nsmesh.model.messages import State


def living_chains(mesh):
    """Return the chains of all living processes that serve connections, by role."""
    return {
        name: [chain for chain in process.chains if any(isinstance(one, Begin) for one in chain.elements)]
        for name, process in mesh.processes.items()
        if process.alive
    }


def always(mesh):
    """Assert what holds between any two steps of the event loop."""
    for name, chains in living_chains(mesh).items():
        found = orphans(chains)
        assert not found, f"{name}: {[str(one) for one in found]}"
    twice = []
    for endpoint in ENDPOINTS:
        given = Counter(
            address
            for (name, _), addresses in mesh.leases().items()
            if name == endpoint
            for address in addresses
        )
        twice += [address for address, times in given.items() if times > 1]
    assert not twice, f"addresses given out twice: {twice}"
    assert not mesh.faults.stolen, f"closed by somebody else: {mesh.faults.stolen}"


async def at_rest(mesh):
    """Assert that the roles agree on what lives; Requests of their own may be under way for an instant."""
    for pause in (0.05, 0.11, 0.23, 0.47, 0.97, 2.1, 0):
        try:
            always(mesh)
            await agree(mesh)
        except AssertionError:
            if not pause:
                raise
            await asyncio.sleep(pause)
        else:
            return


async def agree(mesh):
    """Assert that what clients have is what is wired, leased, told and known, and nothing else is."""
    living = [(name, one) for name in CLIENTS for one in mesh.lives(name).values()]
    expected = {name: set() for name in ROLES}
    addresses = Counter()
    for name, connection in living:
        segments = connection.path.path_segments
        where = f"{connection.id} ({[segment.name for segment in segments]})"
        served = next(segment.name for segment in segments if segment.name in (*ENDPOINTS, MIDDLE))
        assert served == connection.network_service_endpoint_name, where
        for segment in segments[1:]:
            expected[segment.name].add(segment.id)
        context = connection.context.ip_context
        addresses.update(set(context.src_ip_addrs) | set(context.dst_ip_addrs))
        if mesh.kernels:
            _wired(mesh, name, connection, where)
        leased = mesh.leases().get((segments[-1].name, segments[-1].id), [])
        has = set(context.src_ip_addrs) | set(context.dst_ip_addrs)
        assert set(leased) == has, f"{where}: has {has}, was given {leased}"
    assert max(addresses.values(), default=1) == 1, f"one address for two: {addresses.most_common(3)}"
    _known(mesh, expected)
    for node, kernel in mesh.kernels.items():
        owned = {interface.wire_id for interface in kernel.interfaces.values()} | set(kernel.tunnels)
        assert owned == expected[f"fwd{node}"], f"kernel {node}: {owned ^ expected[f'fwd{node}']}"
    for node in mesh.nodes:
        told = await mesh.told(node)
        assert set(told) == expected[f"nsmgr{node}"], f"told by nsmgr{node}: {set(told)}"
        assert all(one.state == State.UP for one in told.values()), f"told by nsmgr{node}: {told}"
    leased = {key for _, key in mesh.leases()}
    assert leased == set().union(*(expected[name] for name in ENDPOINTS)), f"leases: {leased}"


def _wired(mesh, name, connection, where):
    parameters = connection.mechanism.parameters
    here = mesh.kernels[1].interfaces.get((f"/run/netns/{name}", parameters["name"]))
    assert here is not None, f"{where}: no interface {parameters['name']}"
    assert mesh.leads(1, here.wire_id), f"{where}: the wire leads nowhere"
    forwarder = next(one for one in connection.path.path_segments if one.name == "fwd1")
    assert here.wire_id == forwarder.id, f"{where}: the interface belongs to {here.wire_id}"
    context = connection.context.ip_context
    far = mesh.far_end(1, here.wire_id)
    assert set(here.port.addresses) == set(context.src_ip_addrs), f"{where}: {here.port.addresses}"
    if far.port.numbered:
        assert set(far.port.addresses) == set(context.dst_ip_addrs), f"{where}: {far.port.addresses}"
    assert far.netns == f"/run/netns/{connection.network_service_endpoint_name}", f"{where}: {far.netns}"


def _known(mesh, expected):
    for name, chains in living_chains(mesh).items():
        if name not in expected or name == "registry":
            continue
        for chain in chains:
            if "registr" in chain.name:
                continue
            ids = set(begin_of(chain)._lives)
            assert ids == expected[name], f"{chain.name} knows {ids}, expected {expected[name]}"


def empty(mesh):
    """Assert that nothing is left of any connection: no address, interface, timer, task, life, turn."""
    always(mesh)
    assert mesh.leases() == {}
    for kernel in mesh.kernels.values():
        assert not kernel.interfaces, f"interfaces left: {kernel.interfaces}"
        assert not kernel.tunnels, f"tunnels left: {kernel.tunnels}"
        assert not kernel._ends
    for chains in living_chains(mesh).values():
        for chain in chains:
            begin = begin_of(chain)
            assert begin._lives == {}, f"{chain.name}: {list(begin._lives)}"
            assert len(begin.turns) == 0, f"{chain.name}: turns"
            for element in chain.elements:
                kept = list(element.keeps())
                assert not kept, f"{chain.name}: {type(element).__name__} holds {kept}"
                follower = getattr(element, "_follower", None)
                assert follower is None or follower.streams == 0, f"{chain.name}: follows somebody"
            if "registr" not in chain.name:
                left = [task.get_name() for task in chain.scope._tasks if task.get_name() != "sweep"]
                assert not left, f"{chain.name}: tasks {left}"
                assert chain.scope.timers == 0, f"{chain.name}: {chain.scope.timers} timers"
