"""A journal in memory: for chains whose processes are played, and end and begin in one real one."""

from __future__ import annotations

import asyncio

from nsmesh.core.journalling import Record

_WHOLE = ("whole", "")


class MemoryJournal:
    """Implements :class:`nsmesh.core.journalling.Journal`; ``kept`` outlives whoever writes it.

    What is put counts as written when the event loop has turned, as with a file: a crash before that
    (:meth:`lose`) loses it.
    """

    def __init__(self, kept: dict[tuple[str, str], Record] | None = None) -> None:
        self.kept = kept if kept is not None else {}
        self._pending: dict[tuple[str, str], Record | None] = {}
        self._lost = False

    @property
    def whole(self) -> bool:
        """See :class:`nsmesh.core.journalling.Journal`."""
        return _WHOLE in self.kept

    def vouch(self) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.vouch`."""
        self._note(_WHOLE, Record(b"", b"", "", {}))

    def put(self, chain: str, connection_id: str, record: Record) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.put`."""
        self._note((chain, connection_id), record)

    def drop(self, chain: str, connection_id: str) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.drop`."""
        self._note((chain, connection_id), None)

    def _note(self, key: tuple[str, str], record: Record | None) -> None:
        if not self._lost:
            self._pending[key] = record
            asyncio.get_running_loop().call_soon(self.settle)

    def lose(self) -> None:
        """End as a process that is killed does: nothing is written any more."""
        self._lost = True
        self._pending.clear()

    def records(self, chain: str) -> dict[str, Record]:
        """See :meth:`nsmesh.core.journalling.Journal.records`."""
        self.settle()
        return {name: record for (of, name), record in self.kept.items() if of == chain}

    def chains(self) -> list[str]:
        """See :meth:`nsmesh.core.journalling.Journal.chains`."""
        self.settle()
        return sorted({of for of, _ in self.kept} - {_WHOLE[0]})

    async def written(self) -> None:
        """See :meth:`nsmesh.core.journalling.Journal.written`."""
        self.settle()

    def settle(self) -> None:
        """Count all as written."""
        for key, record in self._pending.items():
            if record is None:
                self.kept.pop(key, None)
            else:
                self.kept[key] = record
        self._pending.clear()
