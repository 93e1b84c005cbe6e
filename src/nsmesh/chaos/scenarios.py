"""What is broken, where, how, and what is promised for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nsmesh.chaos.ground import Ground
from nsmesh.core.errors import NotFound

APART = ("--separate",)
TWO_NODES = ("--nodes", "2")
KILL, TERM, STOP, LOSE = "kill -9", "SIGTERM", "SIGSTOP", "state lost"
SERVED = 1.0
"""Seconds within which a new Request is promised to be served."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Processes (``who``) of a mesh brought up with ``options`` that suffer ``what``, all at once.

    Promised for each: no packet of a wire that is there is lost, its interfaces stay the same, nothing leaks,
    and a new Request is served within :data:`SERVED` seconds of the fault (of its end, with SIGSTOP).
    """

    who: tuple[str, ...]
    what: str
    options: tuple[str, ...] = APART

    @property
    def where(self) -> str:
        """``local`` or ``remote``."""
        return "remote" if self.options == TWO_NODES else "local"

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "-".join((self.where, *self.who, self.what.replace(" ", "").replace("kill-9", "kill").lower()))

    def state(self, ground: Ground) -> list[Path]:
        """Return the files that are lost with ``state lost``."""
        paths = ground.paths
        found = [paths.registry if unit == "registry" else paths.journal(unit) for unit in self.who]
        return [Path(f"{file}{tail}") for file in found for tail in ("", "-wal", "-shm")]


_LOCAL = ("registry", "nsmgr", "forwarder", "alpha")
_REMOTE = ("registry", "nsmgr-node1", "nsmgr-node2", "forwarder-node1", "forwarder-node2", "alpha")
SCENARIOS = (
    *(Scenario((unit,), what) for what in (KILL, TERM, STOP, LOSE) for unit in _LOCAL),
    *(Scenario(pair, KILL) for pair in (("registry", "nsmgr"), ("registry", "forwarder"))),
    *(Scenario(pair, KILL) for pair in (("nsmgr", "forwarder"), ("nsmgr", "alpha"), _LOCAL)),
    Scenario(("daemon",), KILL, ()),
    Scenario(("daemon",), KILL),
    *(Scenario((unit,), KILL, TWO_NODES) for unit in _REMOTE),
    Scenario(("nsmgr-node1", "nsmgr-node2"), KILL, TWO_NODES),
    Scenario(("forwarder-node1", "forwarder-node2"), KILL, TWO_NODES),
    Scenario(_REMOTE, KILL, TWO_NODES),
)
NAMES = {f"{one.name}-in-one" if one.options == () else one.name: one for one in SCENARIOS}
SHORT = ("local-registry-kill", "local-forwarder-kill", "local-daemon-kill-in-one")
"""What the short form runs."""


def chosen(names: tuple[str, ...], *, short: bool = False) -> dict[str, Scenario]:
    """Return scenarios by name; without names all, or the short form's. Raises NotFound."""
    for name in names:
        if name not in NAMES:
            raise NotFound(f"there is no scenario {name}", remedy="list them with: nsm chaos list")
    wanted = names or (SHORT if short else tuple(NAMES))
    return {name: NAMES[name] for name in wanted}
