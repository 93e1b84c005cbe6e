"""Where somebody may look into a process: at the front of a role, around each element, at each call out.

Nobody looks unless :func:`installed` says so, before the roles of the process are made; then nothing of it
costs anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from nsmesh.core.call import Call
    from nsmesh.core.element import Element, Handler

Headers = tuple[tuple[str, str], ...]


class Observer(Protocol):
    """Somebody who looks. All methods return what takes the place of their argument."""

    def role(self, name: str, handler: Handler) -> Handler:
        """Wrap the front of a role: what is asked of it, over a socket or in this process."""
        ...

    def link(self, chain: str, element: Element, handler: Handler) -> Handler:
        """Wrap ``element`` with all that stands behind it in ``chain``."""
        ...

    def outgoing(
        self, method: str, url: str, call: Call, headers: Headers
    ) -> AbstractContextManager[Headers]:
        """Surround a call to a remote peer; gives the headers to send."""
        ...


_observers: list[Observer] = []


@contextmanager
def installed(observer: Observer) -> Iterator[None]:
    """Let ``observer`` look at what is made while the block runs."""
    _observers.append(observer)
    try:
        yield
    finally:
        _observers.remove(observer)


def observed_role(name: str, handler: Handler) -> Handler:
    """Return the front of a role as others get to see it."""
    for observer in _observers:
        handler = observer.role(name, handler)
    return handler


def observed_link(chain: str, element: Element, handler: Handler) -> Handler:
    """Return an element with what follows it, as the element in front gets to see it."""
    for observer in _observers:
        handler = observer.link(chain, element, handler)
    return handler


def watched() -> Sequence[Observer]:
    """Return who looks."""
    return _observers


@contextmanager
def _all(method: str, url: str, call: Call, headers: Headers) -> Iterator[Headers]:
    with ExitStack() as stack:
        for observer in _observers:
            headers = stack.enter_context(observer.outgoing(method, url, call, headers))
        yield headers


def outgoing(method: str, url: str, call: Call, headers: Headers) -> AbstractContextManager[Headers]:
    """Surround a call to a remote peer; gives the headers to send."""
    return _all(method, url, call, headers) if _observers else nullcontext(headers)
