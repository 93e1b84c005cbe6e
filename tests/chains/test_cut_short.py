"""A Request or Close that a fault cuts short, at each single step of it, leaves nothing behind.

A step is a passage between two elements of any role, or a call of the datapath. Processes keep journals and
are started again. Time is virtual, and all is well long before a token ends.
"""

from __future__ import annotations

import asyncio

import pytest
from life_checks import at_rest, empty
from life_mesh import CLIENTS, LifeMesh

from nsmesh.core.errors import MeshError
from nsmesh.core.virtual import run

pytestmark = pytest.mark.timeout(240)

WHO = CLIENTS[1]
SPACING = 4
"""Each of so many test cases takes one step in so many: they run beside each other."""
SOON = 8.0
"""Virtual seconds after which all is at rest."""


async def _call(work):
    """Wait for a call of the client's, as long as the client lives; say whether it was granted."""
    try:
        await asyncio.wait_for(work, 20)
    except (MeshError, asyncio.CancelledError, TimeoutError):
        return False
    return True


def _ask(mesh, slot, service):
    return mesh.request(WHO, mesh.asked(WHO, slot, service, "nsm-1"))


async def _one(mesh, fault, after, service, *, closing):
    """Do one Request, or its Close, with a fault in it; return whether the fault came to be."""
    if closing:
        assert await _call(_ask(mesh, 0, service))
    fired = mesh.faults.fired
    mesh.faults.arm(fault, after)
    await _call(mesh.close(WHO, f"{WHO}-0") if closing else _ask(mesh, 0, service))
    mesh.faults.disarm()
    await mesh.start()
    await asyncio.sleep(SOON)
    if mesh.lives(WHO):
        await _call(mesh.close(WHO, f"{WHO}-0"))
        await asyncio.sleep(SOON)
    await at_rest(mesh)
    empty(mesh)
    # the interface is free: another connection of the same client gets it at once
    assert await _call(_ask(mesh, 1, service))
    await at_rest(mesh)
    assert await _call(mesh.close(WHO, f"{WHO}-1"))
    return mesh.faults.fired > fired


async def _each(fault, service, first, *, closing):
    mesh = LifeMesh(journals=True, descriptors=fault == "outage")
    try:
        await mesh.start()
        await asyncio.sleep(1)
        step = first
        while await _one(mesh, fault, step, service, closing=closing):
            step += SPACING
        assert step > 20, "there are more steps than that"
    except AssertionError as error:
        error.add_note("\n".join(mesh.history[-40:]))
        raise
    finally:
        await mesh.stop()


@pytest.mark.parametrize("first", range(SPACING))
@pytest.mark.parametrize("closing", [False, True], ids=["request", "close"])
def test_whoever_comes_by_dies(first, closing):
    """Any role is killed at any step of a Request over two nodes, or of its Close: all is well soon."""
    run(_each("crash", "intranet", first, closing=closing))


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize(
    ("service", "closing"),
    [("intranet", False), ("intranet", True), ("secure", False)],
    ids=["two nodes", "two nodes, close", "a function in the middle"],
)
def test_whoever_comes_by_dies_and_has_forgotten_all(service, closing, first):
    """The same where the journal is lost with the process: who stands behind it is asked what there was."""
    run(_each("amnesia", service, first, closing=closing))


@pytest.mark.parametrize("first", range(0, SPACING, 2))
@pytest.mark.parametrize("closing", [False, True], ids=["request", "close"])
def test_all_die_at_once(first, closing):
    """All but the client are killed at any step; who comes after them is reached by other descriptors."""
    run(_each("outage", "intranet", first, closing=closing))
