"""What next hops may still have of ours: Requests without an answer, and Closes that did not come through.

Whoever asked has the duty to close, and not whoever was asked: only he knows that the answer did not come. A
Request is noted in the journal before it leaves, so that the duty outlives its process.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
from google.protobuf.message import DecodeError

from nsmesh.core.errors import REFUSALS, MeshError
from nsmesh.core.journalling import Journal, Record
from nsmesh.core.metrics import Gauge
from nsmesh.core.scope import Scope
from nsmesh.model.copying import copy_of
from nsmesh.model.fileurl import GONE, Inode, after_restart, socket_path
from nsmesh.model.messages import Connection
from nsmesh.model.times import seconds

log = structlog.get_logger()

OWED = Gauge(
    "nsm_dial_unclosed",
    "Connections that a next hop may still have and has not been told to close: 0 at rest.",
    ("chain",),
)

UNCLOSED = "unclosed "
"""How the name begins under which a chain's debts are kept in the journal."""
FIRST, LONGEST = 0.05, 5.0
"""Seconds between two tries at one next hop: at first, and at the most; each is twice as long as the last."""
TRY = 5.0
"""Seconds that a next hop has to answer."""
ENDS = 600.0
"""Seconds after which nothing is owed any more, where a token says nothing else: what it bound has ended."""
TOLD = 1.0
"""Seconds after which the notes of Requests that were answered are taken out of the journal, all at once."""
MOST = 3
"""How often a next hop may refuse a Close until it is left alone."""

Key = tuple[str, str]
"""Target and connection id."""


class Sockets(Protocol):
    """Holds sockets that came as descriptors, by the URL that leads to them."""

    def share(self, name: str, path: str) -> Inode | None:
        """Hold the socket at ``path`` for ``name``; None where nobody in this process holds it."""
        ...

    def release(self, name: str) -> None:
        """Let go of what is held for ``name``."""
        ...


class _Debt:
    __slots__ = ("connection", "name", "refused", "until")

    def __init__(self, name: str, connection: bytes, until: float) -> None:
        self.name = name
        self.connection = connection
        self.until = until
        self.refused = 0


class Unclosed:
    """Notes what one chain asks of next hops, and closes there what they did not answer.

    ``close`` makes one try at a target (a URL, or empty for the only one there is), of whom it is told the
    name too, where it is known: a URL that leads to a descriptor means nothing to the next process, which
    finds who was asked by the name alone. ``scope`` is entered while the chain runs; without it nothing is
    tried again. Times are wall times in seconds. ``sockets`` are held where something is owed: else the
    number of a descriptor might lead to somebody else.
    """

    def __init__(
        self,
        close: Callable[[str, str, Connection], Awaitable[None]],
        scope: Callable[[], Scope],
        journal: Journal | None,
        sockets: Sockets,
    ) -> None:
        self._sockets = sockets
        self._close = close
        self._scope = scope
        self._journal = journal
        self._noted: dict[Key, str] = {}
        self._told: set[Key] = set()
        self._debts: dict[str, dict[str, _Debt]] = {}
        self._awake: dict[str, asyncio.Event] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._trying: dict[Key, asyncio.Future[None]] = {}

    def __len__(self) -> int:
        """Return how many connections are owed a Close."""
        return sum(len(debts) for debts in self._debts.values())

    @property
    def owed(self) -> list[Key]:
        """Targets and ids of the connections that are owed a Close."""
        return sorted((target, key) for target, debts in self._debts.items() for key in debts)

    @property
    def chain(self) -> str:
        """Name under which it is kept in the journal."""
        return f"{UNCLOSED}{self._scope().name}"

    async def paid(self) -> None:
        """Return when nothing is owed any more."""
        while self._workers:
            await asyncio.wait(tuple(self._workers.values()))

    def counts(self) -> Mapping[tuple[str, ...], float]:
        """Return how many there are, for the metric."""
        return {(self._scope().name,): len(self)}

    def take_up(self, alive: Callable[[str, str], bool]) -> None:
        """Owe what an earlier process of ours did; ``alive`` says of target and id that it was agreed."""
        if self._journal is None:
            return
        for row, record in self._journal.records(self.chain).items():
            target, connection_id, name = after_restart(record.peer), "", ""
            try:
                connection = Connection.FromString(record.connection)
                connection_id = connection.id
                name = record.state.get("name", b"").decode() or _behind(connection)
                until = float(json.loads(record.state.get("until", b"0")))
            except (DecodeError, ValueError, TypeError):
                until = 0.0
            if not until or alive(target, connection_id):
                self._journal.drop(self.chain, row)
                continue
            if target != record.peer:
                self._journal.drop(self.chain, row)
            debt = _Debt(name, record.connection, until)
            self._note((target, connection_id), debt)
            self._owe((target, connection_id), debt)

    async def ask(self, target: str, connection: Connection, name: str = "") -> None:
        """Note a first Request before it leaves; it stands in the place of a Close that was owed there.

        ``name``: of who is asked, where the target was found by one.
        """
        key = target, connection.id
        await self._instead(key)
        self._told.discard(key)
        if self._journal is not None:
            self._note(key, _Debt(name, connection.SerializeToString(), self._until(connection)))
            await self._journal.written()

    async def instead(self, target: str, connection_id: str) -> None:
        """Owe no Close any more: what the next hop has is asked for again, and lives on if that fails."""
        key = target, connection_id
        await self._instead(key)
        self._drop(key)

    async def _instead(self, key: Key) -> None:
        """Let a Request stand in the place of a Close; one just under way must not meet what comes after."""
        while (trying := self._trying.get(key)) is not None:
            await asyncio.wait((trying,))
        self._pay(key)

    def answered(self, target: str, connection_id: str) -> None:
        """Hear that a Request was granted: from now on its life is what is kept of it."""
        key = target, connection_id
        if key in self._noted:
            if not self._told and self._scope().running:
                self._scope().after(TOLD, self._forget_told)
            self._told.add(key)

    def settled(self, target: str, connection_id: str) -> None:
        """Hear that a next hop has nothing: it has refused a first Request, or answered a Close."""
        key = target, connection_id
        self._pay(key)
        self._drop(key)

    def owe(self, target: str, connection: Connection, *, lost: bool = False) -> None:
        """Take on a Close that was not answered.

        ``lost``: nobody listens there. Behind a descriptor nobody comes again, and its number may become
        somebody else's: who was asked is found by name from then on.
        """
        key = target, connection.id
        name = self._noted.get(key, "") or _behind(connection)
        if lost and (left := after_restart(target)) != target:
            self._drop(key)
            key = left, connection.id
        self._told.discard(key)
        debt = _Debt(name, connection.SerializeToString(), self._until(connection))
        self._note(key, debt)
        if self._scope().running:  # else it is for the process that comes after us
            self._owe(key, debt)

    def reached(self, target: str) -> None:
        """Hear that somebody answers at a target: what is owed there need not wait any longer."""
        awake = self._awake.get(target)
        if awake is not None:
            awake.set()

    def _until(self, connection: Connection) -> float:
        now = self._scope().clock.now()
        segments, index = connection.path.path_segments, connection.path.index
        ends = seconds(segments[index].expires) if index < len(segments) else 0.0
        return max(ends, now + ENDS)

    def _note(self, key: Key, debt: _Debt) -> None:
        if self._journal is not None:
            self._noted[key] = debt.name
            state = {"until": json.dumps(debt.until).encode(), "name": debt.name.encode()}
            self._journal.put(self.chain, " ".join(key), Record(debt.connection, b"", key[0], state))

    def _drop(self, key: Key) -> None:
        self._told.discard(key)
        if key in self._noted:
            del self._noted[key]
            if self._journal is not None:
                self._journal.drop(self.chain, " ".join(key))

    def _forget_told(self) -> None:
        for key in tuple(self._told):
            self._drop(key)

    def _owe(self, key: Key, debt: _Debt) -> None:
        target, connection_id = key
        debts = self._debts.get(target)
        if debts is None:
            debts = self._debts[target] = {}
            self._awake[target] = asyncio.Event()
            path = socket_path(target)
            if path is not None:
                self._sockets.share(target, path)
            work = self._work(target)
            self._workers[target] = self._scope().spawn(work, name="close what was not closed")
        debts[connection_id] = debt

    def _pay(self, key: Key) -> None:
        debts = self._debts.get(key[0])
        if debts is not None:
            debts.pop(key[1], None)

    async def _work(self, target: str) -> None:
        """Try until nothing is owed at a target; who is silent is asked ever more seldom."""
        debts, awake, pause = self._debts[target], self._awake[target], FIRST
        try:
            while debts:
                awake.clear()
                try:
                    async with asyncio.timeout(pause):
                        await awake.wait()
                except TimeoutError:
                    pause = min(2 * pause, LONGEST)
                else:
                    pause = FIRST
                for connection_id in list(debts):
                    if connection_id not in debts or await self._try((target, connection_id)):
                        continue
                    if target != GONE:  # behind that each is somebody else
                        break
        finally:
            del self._debts[target], self._awake[target], self._workers[target]
            self._sockets.release(target)

    async def _try(self, key: Key) -> bool:
        """Try to close one; say whether it was worth it to go on with others."""
        debt = self._debts[key[0]][key[1]]
        connection = Connection.FromString(debt.connection)
        if debt.until <= self._scope().clock.now():
            log.warning("a Close was never answered: its tokens have ended", connection=key[1], at=key[0])
            self.settled(*key)
            return True
        trying = self._trying[key] = asyncio.get_running_loop().create_future()
        try:
            await self._close(key[0], debt.name, copy_of(connection))
        except MeshError as error:
            return self._failed(key, debt, error)
        finally:
            del self._trying[key]
            trying.set_result(None)
        log.info("closed what was not closed", connection=key[1], at=key[0])
        self._settle(key, debt)
        return True

    def _failed(self, key: Key, debt: _Debt, error: MeshError) -> bool:
        if error.status not in REFUSALS:
            return False
        debt.refused += 1
        if debt.refused >= MOST:
            log.warning("a Close was refused: left alone", connection=key[1], at=key[0], error=str(error))
            self._settle(key, debt)
        return True

    def _settle(self, key: Key, debt: _Debt) -> None:
        """Let go of a debt, unless it was taken on anew meanwhile."""
        if self._debts[key[0]].get(key[1]) is debt:
            self.settled(*key)


def _behind(connection: Connection) -> str:
    behind = connection.path.path_segments[connection.path.index + 1 :]
    return behind[0].name if behind else ""
