"""What is broken, where, how, and what is promised for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from nsmesh.chaos.clocks import can_be_set
from nsmesh.chaos.ground import Ground
from nsmesh.core.errors import Invalid, NotFound
from nsmesh.datapath.ovs_programs import lacks_switch

APART = ("--separate",)
TWO_NODES = ("--nodes", "2")
THREE_NODES = ("--nodes", "3")
SWITCH = (*APART, "--forwarders", "ovs")
KILL, TERM, STOP, LOSE = "kill -9", "SIGTERM", "SIGSTOP", "state lost"
LONG_STOP = "SIGSTOP 30 s"
DOWN, DELETED = "interface down", "interface deleted"
DIES, GONE = "dies with its namespace", "node gone"
CUT, LONG_CUT = "underlay cut 50 ms", "underlay cut 3 s"
FULL = "disk full"
AHEAD, BACK = "clock 1 h ahead", "clock 1 h back"
CLOCKS = {AHEAD: 3600, BACK: -3600}
"""Seconds by which the clock of all is set, and set right again afterwards."""
RESTART, UPGRADE = "restart", "upgrade"
HOLD = {STOP: 2.0, LONG_STOP: 30.0, CUT: 0.05, LONG_CUT: 3.0}
"""Seconds that a fault lasts which ends by itself."""
_SLUGS = {
    KILL: "kill",
    DIES: "dies",
    GONE: "gone",
    FULL: "full",
    AHEAD: "clock-ahead-1h",
    BACK: "clock-back-1h",
    CUT: "cut-50ms",
    LONG_CUT: "cut-3s",
    LONG_STOP: "sigstop-30s",
}
IDLE, PING, STREAM, REQUEST = SITUATIONS = ("idle", "ping", "stream", "request")
"""What goes on meanwhile: nothing; 5 packets a second; 10,000; 10,000 and a Request that is under way."""
RATES = {IDLE: 0, PING: 5, STREAM: 10_000, REQUEST: 10_000}
"""Packets a second."""


class Promise(NamedTuple):
    """What is promised: all is well within ``limit`` seconds.

    ``wire``: the wire itself suffers, and the time is that in which no packet passed; else it is that until a
    new Request is served, and no packet is lost. ``moves``: it may be another endpoint's afterwards, with the
    same interface at the client; else nothing of it changes.
    """

    limit: float
    text: str
    wire: bool = False
    moves: bool = False


_SERVED = Promise(1.0, "0 lost, nothing changed, new Request < 1 s")
_RESTORED = Promise(0.3, "packets flow again < 300 ms, nothing changed", wire=True)
_AGAIN = Promise(1.0, "packets flow again < 1 s after its end, interface the same", wire=True, moves=True)
_FOLLOWED = Promise(1.0, "packets flow again < 1 s, nothing changed", wire=True)
_PROMISES = {
    DOWN: _RESTORED,
    DELETED: _RESTORED,
    CUT: _RESTORED,
    DIES: Promise(0.3, "packets flow again < 300 ms, interface the same", wire=True, moves=True),
    GONE: Promise(0.5, "packets flow again < 500 ms, interface the same", wire=True, moves=True),
    LONG_CUT: _AGAIN,
}


class Layout(NamedTuple):
    """The mesh that a scenario needs: ``options`` of ``nsm up``, endpoints (name, node), a disk, a clock."""

    options: tuple[str, ...]
    endpoints: tuple[tuple[str, str], ...]
    small: bool
    clock: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """Those named by ``who``, of a mesh brought up with ``options``, suffer ``what``, all at once.

    They are processes, or ``client``: its interface; ``node``: that of the endpoint which has the client's
    wire; ``endpoint``: that endpoint, ``endpoints``: all; ``disk``: that of the run directory. ``beside``:
    there is another endpoint, which may take the wire. ``mesh``: all that ``nsm restart`` or ``nsm upgrade``
    goes over to a next process. ``switch``: both daemons of Open vSwitch.
    """

    who: tuple[str, ...]
    what: str
    options: tuple[str, ...] = APART
    beside: bool = False

    @property
    def where(self) -> str:
        """``local`` or ``remote``; ``ovs``: local, and wires are those of Open vSwitch."""
        if self.options == SWITCH:
            return "ovs"
        return "remote" if self.options[:1] == TWO_NODES[:1] else "local"

    @property
    def name(self) -> str:
        """What the command line calls it."""
        return "-".join((self.where, *self.who, _SLUGS.get(self.what) or self.what.replace(" ", "").lower()))

    @property
    def promise(self) -> Promise:
        """What is promised. Where all endpoints die, the time counts from when they are there again."""
        whose = {"endpoints": _AGAIN, "switch": _FOLLOWED}
        return whose.get(self.who[0]) or _PROMISES.get(self.what, _SERVED)

    @property
    def layout(self) -> Layout:
        """What it needs."""
        far = [f"node{number}" for number in range(2, 4)] if self.where == "remote" else ["", ""]
        endpoints = tuple(zip(("alpha", "beta"), far, strict=True))
        there = endpoints if self.beside else endpoints[:1]
        return Layout(self.options, there, self.what == FULL, self.what in CLOCKS)

    def state(self, ground: Ground) -> list[Path]:
        """Return the files that are lost with ``state lost``; of the daemon all that its CA has."""
        paths = ground.paths
        if self.who == ("daemon",):
            return list((paths.state / "ca").iterdir())
        found = [paths.registry if unit == "registry" else paths.journal(unit) for unit in self.who]
        return [Path(f"{file}{tail}") for file in found for tail in ("", "-wal", "-shm")]


_LOCAL = ("registry", "nsmgr", "forwarder", "alpha")
_REMOTE = ("registry", "nsmgr-node1", "nsmgr-node2", "forwarder-node1", "forwarder-node2", "alpha")
SCENARIOS = (
    *(Scenario((unit,), what) for what in (KILL, TERM, STOP, LOSE) for unit in _LOCAL),
    *(Scenario((unit,), LONG_STOP) for unit in (*_LOCAL, "daemon")),
    *(Scenario(pair, KILL) for pair in (("registry", "nsmgr"), ("registry", "forwarder"))),
    *(Scenario(pair, KILL) for pair in (("registry", "alpha"), ("nsmgr", "forwarder"))),
    *(Scenario(some, KILL) for some in (("nsmgr", "alpha"), _LOCAL)),
    Scenario(("daemon",), KILL, ()),
    *(Scenario(("daemon",), what) for what in (KILL, STOP, LOSE)),
    *(Scenario((unit,), what, TWO_NODES) for what in (KILL, TERM, LOSE) for unit in _REMOTE),
    *(Scenario((f"{role}-node2",), LONG_STOP, TWO_NODES) for role in ("nsmgr", "forwarder")),
    *(Scenario((f"{role}-node1", f"{role}-node2"), KILL, TWO_NODES) for role in ("nsmgr", "forwarder")),
    *(Scenario(("registry", f"{role}-node2"), KILL, TWO_NODES) for role in ("nsmgr", "forwarder")),
    *(Scenario(some, KILL, TWO_NODES) for some in (("nsmgr-node2", "alpha"), _REMOTE)),
    *(Scenario(("client",), what, options) for options in (APART, TWO_NODES) for what in (DOWN, DELETED)),
    Scenario(("endpoint",), KILL, beside=True),
    Scenario(("endpoint",), DIES, beside=True),
    Scenario(("endpoints",), DIES, beside=True),
    Scenario(("endpoint",), DIES, THREE_NODES, beside=True),
    Scenario(("node",), GONE, THREE_NODES, beside=True),
    Scenario(("node",), CUT, THREE_NODES, beside=True),
    Scenario(("node",), LONG_CUT, TWO_NODES),
    Scenario(("disk",), FULL),
    *(Scenario(("mesh",), what) for what in CLOCKS),
    *(Scenario((unit,), RESTART) for unit in (*_LOCAL, "daemon", "mesh")),
    Scenario(("mesh",), UPGRADE),
    *(Scenario(("client",), what, SWITCH) for what in (DOWN, DELETED)),
    Scenario(("endpoint",), DIES, SWITCH, beside=True),
    *(Scenario((who,), KILL, SWITCH) for who in ("forwarder", "switch")),
)
NAMES = {f"{one.name}-in-one" if one.options == () else one.name: one for one in SCENARIOS}
SHORT = ("local-registry-kill", "local-forwarder-kill", "local-mesh-restart", "local-daemon-kill-in-one")
"""What the short form runs."""


class Wanted(NamedTuple):
    """A scenario, by its name, and how often it is wanted."""

    name: str
    scenario: Scenario
    times: int


def chosen(names: Sequence[str], repeat: int, *, short: bool = False) -> list[Wanted]:
    """Return scenarios by name, ``repeat`` times each or as often as ``NAME=TIMES`` says.

    Without names all, or the short form's; of all, what cannot be here is left out: those that set the clock,
    and those of Open vSwitch. Raises NotFound, Invalid.
    """
    cannot = _cannot_be()
    every = tuple(name for name, one in NAMES.items() if one not in cannot)
    found = []
    for text in names or (SHORT if short else every):
        name, given, times = text.partition("=")
        if name not in NAMES:
            raise NotFound(f"there is no scenario {name}", remedy="list them with: nsm chaos list")
        if given and not (times.isdecimal() and int(times) > 0):
            raise Invalid(
                f"{text} does not say how often: {times!r} is no number of times",
                remedy=f"write {name}=20, or {name} alone",
            )
        found.append(Wanted(name, NAMES[name], int(times) if given else repeat))
    return found


def _cannot_be() -> set[Scenario]:
    """Return the scenarios that need what is not on this machine."""
    clocks, switch = can_be_set(), not lacks_switch()
    return {
        one
        for one in SCENARIOS
        if (one.what in CLOCKS and not clocks) or (one.options == SWITCH and not switch)
    }
