"""Ending processes of a mesh by the book and starting them again, with wires and sockets kept."""

from __future__ import annotations

from collections.abc import Callable

from nsmesh.core.errors import NotFound, Refused, Unavailable
from nsmesh.standalone.events import Event
from nsmesh.standalone.mesh import Mesh
from nsmesh.standalone.roles import answers, role_units
from nsmesh.standalone.supervisor import Unit
from nsmesh.standalone.telling import last_words

READY = 10.0
"""Seconds within which a process that was started again must be there."""

Tell = Callable[[Event], None]


async def restart(mesh: Mesh, name: str, tell: Tell) -> None:
    """Restart a process by the name of its role or endpoint; empty: all, one after another.

    Raises NotFound, Refused for a role that is a part of the daemon, Unavailable for one that stays away.
    """
    for unit in units_of(mesh, name):
        await restart_unit(mesh, unit, tell)


async def restart_unit(
    mesh: Mesh, unit: Unit, tell: Tell, *, between: Callable[[], None] = lambda: None, once: bool = False
) -> None:
    """Let a successor follow on one process, and wait until it is ready.

    ``between`` is called while none runs. Raises Unavailable for one that does not get ready; with ``once``
    also when it ends before that, though it would be started again.
    """
    before = unit.process.pid if unit.process is not None else 0
    started = mesh.scope.clock.monotonic()
    await mesh.supervisor.restart(unit.name, between)
    after = unit.process.pid if unit.process is not None else 0
    given_up = (lambda: unit.process is None or unit.process.pid != after) if once else None
    if unit.kind == "role":
        urls = {known.name: url for known, url in role_units(mesh)} if mesh.separate else {}
        await answers(mesh, unit.name, urls[unit.name], given_up)
    else:
        await _registered(mesh, unit, given_up)
    took = mesh.scope.clock.monotonic() - started
    text = f"{unit.kind} {unit.name} restarted in {took:.2f} s: pid {before} became {after}"
    tell(mesh.events.add(unit.kind, text))


def units_of(mesh: Mesh, name: str) -> list[Unit]:
    """Return the processes of a mesh that can be restarted, roles first, or the one of a name.

    Raises NotFound or Refused where there is none of that name.
    """
    known = {key: unit for key, unit in mesh.supervisor.units.items() if unit.kind in {"role", "endpoint"}}
    if not name:
        return sorted(known.values(), key=lambda unit: unit.kind != "role")
    if name in known:
        return [known[name]]
    roles = {"registry", "nsmgr", "forwarder"}
    if name in roles and not mesh.separate:
        raise Refused(f"the {name} is a part of the daemon here", remedy="restart that: nsm restart daemon")
    raise NotFound(
        f"there is no role or endpoint {name}",
        remedy=f"there are: {', '.join([*known, 'daemon', 'all'])}",
    )


async def _registered(mesh: Mesh, unit: Unit, given_up: Callable[[], bool] | None) -> None:
    """Wait until an endpoint answers and is registered: its predecessor's entry stays meanwhile."""
    for url in unit.listens:
        await answers(mesh, unit.name, url, given_up)

    def there() -> bool:
        return unit.process is not None and unit.name in mesh.model.endpoints

    await mesh.news.until(there, READY)
    if not there():
        words = last_words(mesh.paths.logs / f"{unit.name}.log")
        raise Unavailable(
            f"endpoint {unit.name} did not come back: {words}", remedy=f"see: nsm logs {unit.name}"
        )
