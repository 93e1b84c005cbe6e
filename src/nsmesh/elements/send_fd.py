"""SendFd: network namespaces and sockets that mechanisms name travel as descriptors to the next process."""

from __future__ import annotations

from nsmesh.core.call import Call
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import Invalid, NotFound, Unauthorized
from nsmesh.core.life import OWN
from nsmesh.core.passing import PASSING, Passing, passing_at
from nsmesh.core.peering import DIALLED, peer_of
from nsmesh.model.fileurl import INODE_URL, file_path, means_its_reader, naming
from nsmesh.model.messages import Connection, NetworkServiceRequest


def _sent(url: str, passing: Passing | None) -> str:
    """Return the inode URL of a file that was sent, or ``url`` itself where there is nothing to send.

    A path that cannot be opened here goes on as it is: it may lead somewhere for whoever reads it.
    """
    path = file_path(url)
    if path is None:
        return url
    if passing is None:
        if means_its_reader(path):
            raise Invalid(
                f"{url} cannot be passed on: only unix sockets carry descriptors",
                remedy="use a unix socket for this hop; LOCAL mechanisms do not work over tcp",
            )
        return url
    try:
        return passing.send(path)
    except (NotFound, Unauthorized):
        if means_its_reader(path):
            raise
        return url


class SendFd(Element):
    """The server half: the file that the answer's mechanism names goes to the caller as a descriptor.

    Not the one that the caller named itself: that stays named as it was.

    After:  Begin, Timeout, Monitor
    Reads:  PASSING
    Writes: ``inodeURL`` of the answer's mechanism
    Close:  passes on
    """

    after = ("Begin", "Authorize", "Timeout", "Monitor")

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Pass on, send."""
        if call.peer.in_process or call.get(OWN):  # nobody reads the answer in another process
            return await next.request(call, request)
        named = {mechanism.parameters[INODE_URL] for mechanism in naming(request)}
        answer = await next.request(call, request)
        if answer.HasField("mechanism"):
            parameters = answer.mechanism.parameters
            url = parameters.get(INODE_URL, "")
            if url and url not in named:
                parameters[INODE_URL] = _sent(url, call.get(PASSING))
        return answer


class SendFdClient(Element):
    """The client half: files that a Request or Close names go to the next hop as descriptors.

    The answer names each of them as it was named here. To a role of this process nothing need be sent.

    After:  Dial
    Reads:  DIALLED
    Writes: ``inodeURL`` of preferences and mechanism; back in the answer
    Close:  sends too, what can be sent
    """

    after = ("Dial",)

    async def request(self, call: Call, request: NetworkServiceRequest, next: Handler) -> Connection:
        """Send, pass on, name as before."""
        handler = call.get(DIALLED)
        if handler is None or peer_of(handler).in_process:
            return await next.request(call, request)
        passing = passing_at(handler)
        sent: dict[str, str] = {}
        for mechanism in naming(request):
            url = mechanism.parameters[INODE_URL]
            if url not in sent:
                sent[url] = _sent(url, passing)
            mechanism.parameters[INODE_URL] = sent[url]
        answer = await next.request(call, request)
        if sent and answer.HasField("mechanism"):
            parameters = answer.mechanism.parameters
            before = {
                inode: url for url, inode in sent.items()
            }  # of two names the mechanism's, which is last
            url = parameters.get(INODE_URL, "")
            if url in before:
                parameters[INODE_URL] = before[url]
        return answer

    async def close(self, call: Call, connection: Connection, next: Handler) -> None:
        """Send what can be sent, pass on."""
        handler = call.get(DIALLED)
        if handler is not None and not peer_of(handler).in_process and connection.HasField("mechanism"):
            parameters = connection.mechanism.parameters
            url = parameters.get(INODE_URL, "")
            passing = passing_at(handler)
            if url and passing is not None:
                parameters[INODE_URL] = _sent(url, passing)
        await next.close(call, connection)
