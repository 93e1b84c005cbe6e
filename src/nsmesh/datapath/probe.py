"""Whether packets go through a wire, now: asks for the neighbour's link address and waits for the answer.

That is the one question that every host answers, and every transparent function has to let pass: ARP for
IPv4, a neighbour solicitation for IPv6. The kernel's own tables see nothing of it. An interface without link
addresses, such as that of an encrypted tunnel, is asked for an echo instead, and so is a wire of payload IP.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.datapath.echo_request import EchoRequest

AGAIN = 0.1
"""Seconds between two questions, at the most; the first ones come faster."""
FIRST = 0.005

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SIOCGIFFLAGS = 0x8913
_SIOCGIFHWADDR = 0x8927
_IFF_RUNNING = 0x40
_ARPHRD_ETHER = 1


def running(namespace: str, interface: str) -> bool:
    """Return whether an interface is there, is up, and its other end is too; False where nobody can tell."""
    try:
        return carries(namespace, interface)
    except MeshError:
        return False


def carries(namespace: str, interface: str) -> bool:
    """Return the same; ``namespace`` empty: this process's own, for which no right is needed.

    Raises NotFound where the namespace is gone, Unauthorized where this process may not enter it.
    """

    def flags() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", interface.encode()))
            except OSError:
                return 0
        found: int = struct.unpack_from("=H", answer, 16)[0]
        return found

    return bool((netns.call_in(namespace, flags) if namespace else flags()) & _IFF_RUNNING)


async def answers(
    namespace: str, interface: str, source: str, target: str, seconds: float, *, frames: bool = True
) -> bool:
    """Return whether ``target`` (an address) answers ``source`` at an interface within ``seconds``.

    Asks again and again until then. False where namespace, interface or address are not there. ``frames``:
    whether more than IP comes through; else the question is an echo request.
    """
    try:
        here, there = ip_address(source), ip_address(target)
        question, sock = netns.call_in(namespace, lambda: _opened(interface, here, there, frames=frames))
    except (MeshError, OSError, ValueError):
        return False
    try:
        return await _ask(sock, question, seconds)
    except OSError:
        return False
    finally:
        _let_go(sock)


def _opened(
    interface: str, here: object, there: IPv4Address | IPv6Address, *, frames: bool
) -> tuple[Question, socket.socket]:
    """Return the question that this kind of interface can be asked, and its socket."""
    question: Question
    if not frames or _link_address(interface) is None:
        question = EchoRequest(here, there)
    else:
        question = _Arp(here, there) if isinstance(there, IPv4Address) else _Neighbour(here, there)
    return question, question.open(interface)


def _link_address(interface: str) -> bytes | None:
    """Return the MAC of an interface of Ethernet, None of another kind; raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFHWADDR, struct.pack("16s24x", interface.encode()))
    kind: int = struct.unpack_from("=H", answer, 16)[0]
    return answer[18:24] if kind == _ARPHRD_ETHER else None


def _let_go(sock: socket.socket) -> None:
    """Close a socket; where that waits for the kernel's readers, as for packets, in a thread."""
    if sock.family == socket.AF_PACKET:
        asyncio.get_running_loop().run_in_executor(None, sock.close)
    else:
        sock.close()


async def _ask(sock: socket.socket, question: Question, seconds: float) -> bool:
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + seconds, FIRST
    while (left := end - loop.time()) > 0:
        question.send(sock)
        if await _heard(sock, question, min(pause, left)):
            return True
        pause = min(2 * pause, AGAIN)
    return False


async def _heard(sock: socket.socket, question: Question, seconds: float) -> bool:
    """Return whether the answer comes in time; what is there counts, however late this process looks."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while not _is_there(sock, question):
        if (left := end - loop.time()) <= 0:
            return False
        something = asyncio.Event()
        loop.add_reader(sock, something.set)
        try:
            async with asyncio.timeout(left):
                await something.wait()
        except TimeoutError:
            pass  # it may have come together with the end of the time
        finally:
            loop.remove_reader(sock)
    return True


def _is_there(sock: socket.socket, question: Question) -> bool:
    """Read all that has come in; say whether the answer is among it."""
    try:
        while not question.answered(sock.recv(1500)):
            pass
    except BlockingIOError:
        return False
    return True


class Question(Protocol):
    """What can be asked through a socket of its own."""

    def open(self, interface: str) -> socket.socket:
        """Return the socket, for the interface alone; raises OSError."""
        ...

    def send(self, sock: socket.socket) -> None:
        """Ask once."""
        ...

    def answered(self, data: bytes) -> bool:
        """Whether what came in is the answer."""
        ...


class _Arp:
    """Who has the target? Tell the source."""

    def __init__(self, source: object, target: IPv4Address) -> None:
        if not isinstance(source, IPv4Address):
            raise ValueError(f"{source} and {target} are of different IP versions")  # noqa: TRY004 - of the text
        self.source = source
        self.target = target
        self._interface = ""
        self._mac = bytes(6)

    def open(self, interface: str) -> socket.socket:
        # with a protocol it would hear all interfaces, until bind() had waited for the kernel to forget it
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        try:
            sock.bind((interface, _ETH_P_ARP))
        except OSError:
            sock.close()
            raise
        self._interface = interface
        self._mac = sock.getsockname()[4]
        return sock

    def send(self, sock: socket.socket) -> None:
        frame = _ARP.pack(
            1, 0x0800, 6, 4, _REQUEST, self._mac, self.source.packed, bytes(6), self.target.packed
        )
        sock.sendto(frame, (self._interface, _ETH_P_ARP, 0, 0, _BROADCAST))

    def answered(self, data: bytes) -> bool:
        if len(data) < _ARP.size:
            return False
        *_, operation, _mac, sender, _to, _target = _ARP.unpack_from(data)
        return bool(operation == _REPLY and sender == self.target.packed)


class _Neighbour:
    """The same for IPv6."""

    def __init__(self, source: object, target: IPv6Address) -> None:
        if not isinstance(source, IPv6Address):
            raise ValueError(f"{source} and {target} are of different IP versions")  # noqa: TRY004 - of the text
        self.source = source
        self.target = target
        self._mac = bytes(6)
        self._index = 0

    def open(self, interface: str) -> socket.socket:
        self._mac = _link_address(interface) or self._mac
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMPV6)
        try:
            self._index = socket.if_nametoindex(interface)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            sock.bind((str(self.source), 0, 0, self._index))
        except OSError:
            sock.close()
            raise
        return sock

    def send(self, sock: socket.socket) -> None:
        # the kernel fills the checksum in
        message = struct.pack("!BBHI", _SOLICITATION, 0, 0, 0) + self.target.packed + b"\x01\x01" + self._mac
        group = IPv6Address(bytes.fromhex("ff0200000000000000000001ff") + self.target.packed[13:])
        sock.sendto(message, (str(group), 0, 0, self._index))

    def answered(self, data: bytes) -> bool:
        return len(data) >= 24 and data[0] == _ADVERTISEMENT and data[8:24] == self.target.packed
