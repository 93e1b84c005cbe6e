"""Ending processes of a mesh by the book and starting them again, with wires kept."""

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


async def restart(mesh: Mesh, name: str, tell: Callable[[Event], None]) -> None:
    """Restart a process by the name of its role or endpoint; empty: all, one after another.

    Raises NotFound, Refused for a role that is a part of the daemon, Unavailable for one that stays away.
    """
    units = _units(mesh, name)
    urls = {unit.name: url for unit, url in role_units(mesh)} if mesh.separate else {}
    for unit in units:
        before = unit.process.pid if unit.process is not None else 0
        started = mesh.scope.clock.monotonic()
        await mesh.supervisor.restart(unit.name)
        if unit.kind == "role":
            await answers(mesh, unit.name, urls[unit.name])
        else:
            await _registered(mesh, unit)
        took = mesh.scope.clock.monotonic() - started
        after = unit.process.pid if unit.process is not None else 0
        text = f"{unit.kind} {unit.name} restarted in {took:.2f} s: pid {before} became {after}"
        tell(mesh.events.add(unit.kind, text))


def _units(mesh: Mesh, name: str) -> list[Unit]:
    known = {key: unit for key, unit in mesh.supervisor.units.items() if unit.kind in {"role", "endpoint"}}
    if not name:
        return list(known.values())
    if name in known:
        return [known[name]]
    roles = {"registry", "nsmgr", "forwarder"}
    if name in roles and not mesh.separate:
        raise Refused(f"the {name} is a part of the daemon here", remedy="restart that: nsm restart daemon")
    raise NotFound(
        f"there is no role or endpoint {name}",
        remedy=f"there are: {', '.join([*known, 'daemon', 'all'])}",
    )


async def _registered(mesh: Mesh, unit: Unit) -> None:
    """Wait until an endpoint is registered anew: a killed one's entry stays until it is."""

    def there() -> bool:
        return unit.process is not None and unit.name in mesh.model.endpoints

    await mesh.news.until(there, READY)
    if not there():
        words = last_words(mesh.paths.logs / f"{unit.name}.log")
        raise Unavailable(
            f"endpoint {unit.name} did not come back: {words}", remedy=f"see: nsm logs {unit.name}"
        )
