"""What is broken, where, how, and what is promised for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nsmesh.chaos.ground import Ground
from nsmesh.core.errors import NotFound

APART = ("--separate",)
TWO_NODES = ("--nodes", "2")
KILL, TERM, STOP, LOSE = "kill -9", "SIGTERM", "SIGSTOP", "state lost"
DOWN, DELETED = "interface down", "interface deleted"
SERVED = 1.0
"""Seconds within which a new Request is promised to be served."""
RESTORED = 0.3
"""Seconds within which a wire is promised to let packets through again whose interface somebody harmed."""
IDLE, PING, STREAM, REQUEST = SITUATIONS = ("idle", "ping", "stream", "request")
"""What goes on meanwhile: nothing; 5 packets a second; 10,000; 10,000 and a Request that is under way."""
RATES = {IDLE: 0, PING: 5, STREAM: 10_000, REQUEST: 10_000}
"""Packets a second."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """Processes (``who``) of a mesh brought up with ``options`` that suffer ``what``, all at once.

    Promised for each: no packet of a wire that is there is lost, its interfaces stay the same, nothing leaks,
    and a new Request is served within :data:`SERVED` seconds of the fault (of its end, with SIGSTOP). Where
    the client's interface suffers (``who`` is ``client``), packets are lost until the wire is restored,
    within :data:`RESTORED` seconds.
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

    @property
    def wire(self) -> bool:
        """Say whether the wire itself suffers."""
        return self.what in {DOWN, DELETED}

    @property
    def limit(self) -> float:
        """Seconds within which all is promised to be well."""
        return RESTORED if self.wire else SERVED

    @property
    def promised(self) -> str:
        """What is promised, in words."""
        if self.wire:
            return f"packets flow again < {RESTORED * 1e3:g} ms, nothing changed"
        return f"0 lost, nothing changed, new Request < {SERVED:g} s"

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
    *(Scenario(("client",), what, options) for options in (APART, TWO_NODES) for what in (DOWN, DELETED)),
)
NAMES = {f"{one.name}-in-one" if one.options == () else one.name: one for one in SCENARIOS}
SHORT = ("local-registry-kill", "local-forwarder-kill", "local-daemon-kill-in-one")
"""What the short form runs."""


def chosen(names: tuple[str, ...], situation: str = STREAM, *, short: bool = False) -> dict[str, Scenario]:
    """Return scenarios by name; without names all, or the short form's. Raises NotFound.

    Of all, those that suffer in the wire itself are left out where too few packets would tell for how long.
    """
    for name in names:
        if name not in NAMES:
            raise NotFound(f"there is no scenario {name}", remedy="list them with: nsm chaos list")
    dense = RATES[situation] >= RATES[STREAM]
    every = tuple(name for name, one in NAMES.items() if dense or not one.wire)
    return {name: NAMES[name] for name in names or (SHORT if short else every)}
