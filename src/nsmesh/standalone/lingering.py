"""Chains of clients that are gone, and that the mesh has not answered yet: they go on until it has."""

from __future__ import annotations

from contextlib import AsyncExitStack

from nsmesh.core.element import Chain
from nsmesh.core.scope import Scope
from nsmesh.core.unclosed import Unclosed
from nsmesh.elements.dial import Dial


def _debts(chain: Chain) -> list[Unclosed]:
    return [element.unclosed for element in chain.elements if isinstance(element, Dial)]


class Lingering:
    """Ends chains by name: at once where nothing is owed to the mesh, else in the background."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._leaving: dict[str, AsyncExitStack] = {}

    def __len__(self) -> int:
        """Return how many go on."""
        return len(self._leaving)

    async def end(self, name: str, chain: Chain, leave: AsyncExitStack) -> None:
        """End a chain; where a Close was not answered yet, when it is, or when :meth:`recall` says so."""
        if not any(map(len, _debts(chain))):
            await leave.aclose()
            return
        self._leaving[name] = leave
        self._scope.spawn(self._linger(name, chain, leave), name=f"close what {name} had")

    async def _linger(self, name: str, chain: Chain, leave: AsyncExitStack) -> None:
        try:
            for unclosed in _debts(chain):
                await unclosed.paid()
        finally:
            if self._leaving.get(name) is leave:
                del self._leaving[name]
            await leave.aclose()

    async def recall(self, name: str) -> None:
        """End it now; the next chain of that name knows from the journal what is to be closed."""
        leave = self._leaving.pop(name, None)
        if leave is not None:
            await leave.aclose()

    async def aclose(self) -> None:
        """End all now."""
        for name in list(self._leaving):
            await self.recall(name)
