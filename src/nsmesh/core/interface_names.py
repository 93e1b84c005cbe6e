"""Generated interface names: the same for who asks again, and never one that another has."""

from __future__ import annotations

import itertools
from random import Random

from nsmesh.model.nsurl import generate_interface_name

MOST = 4096
"""Names that are remembered; of more, those that were not asked for longest are forgotten."""


class InterfaceNames:
    """Gives names out. Who asks is a text that stays the same over restarts, and so does the name.

    Two of a thousand names for one service are the same by chance in three of a hundred cases. So each name
    is remembered with whom it was given to, and who comes second gets another. What is forgotten, or was
    given out by another process, can still be met twice: see :meth:`nsmesh.mechanisms.kernel.Kernel.rename`.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._owners: dict[str, str] = {}
        self._names: dict[str, tuple[str, str]] = {}  # by owner, with the service

    def name(self, service: str, owner: str) -> str:
        """Return the name of an interface to ``service`` for ``owner``."""
        of, known = self._names.get(owner, ("", ""))
        if of == service and self._owners.get(known) == owner:
            self._remember(known, owner)
            return known
        for attempt in itertools.count():
            seed = f"{owner} {attempt}" if attempt else owner
            name = generate_interface_name(service, Random(seed))  # noqa: S311 - no secret
            if self._owners.get(name, owner) == owner:
                break
        self._remember(name, owner)
        self._names[owner] = service, name
        return name

    def another(self, service: str, taken: str) -> str:
        """Return a random name, because somebody that is not known here has ``taken``."""
        self._remember(taken, "")
        name = taken
        while name in self._owners:
            name = generate_interface_name(service, Random())  # noqa: S311 - no secret
        return name

    def _remember(self, name: str, owner: str) -> None:
        self._owners.pop(name, None)
        self._owners[name] = owner
        if len(self._owners) > self._most:
            self._names.pop(self._owners.pop(next(iter(self._owners))), None)
