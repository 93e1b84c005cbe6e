"""Where a server listens or a client dials: URLs of unix and tcp sockets, and the sockets made from them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Conflict, Invalid, MeshError, TimedOut, Unauthorized, Unavailable

LONGEST_PATH = 107
"""Bytes of a path that fit into ``sockaddr_un.sun_path`` with its end mark."""

BACKLOG = 1024
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.02
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL: ``path`` of a unix socket (with a zero byte first where abstract), or host and port."""

    url: str
    path: str = ""
    host: str = ""
    port: int = 0

    @property
    def unix(self) -> bool:
        """Whether it is a unix socket: only there descriptors and credentials travel."""
        return bool(self.path)

    @property
    def abstract(self) -> bool:
        """Whether it is a unix socket without a file."""
        return self.path.startswith("\0")


def parse(url: str) -> Address:
    """Return the address that ``url`` names; raises Invalid.

    ``unix:///path``, ``unix:path``, ``unix://@abstract``, ``tcp://host:port``, ``host:port``,
    ``tcp://[::1]:port``.
    """
    for prefix in ("unix://", "unix:"):
        if url.startswith(prefix):
            path = url[len(prefix) :]
            if path in {"", "@"}:
                raise Invalid(f"the address {url!r} names no socket", remedy="write unix:///path/to/socket")
            return Address(url, path="\0" + path[1:] if path.startswith("@") else path)
    if url.startswith("inode://"):
        raise Invalid(
            f"the descriptor of the socket {url} did not arrive",
            remedy="descriptors travel over unix sockets only: check the hop that this address came by",
        )
    host, colon, port = url.removeprefix("tcp://").rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or "/" in host:
        raise Invalid(
            f"the address {url!r} is neither a unix socket nor a host with a port",
            remedy="write unix:///path/to/socket or tcp://host:port",
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Invalid(f"the address {url!r} has a bare IPv6 host", remedy="write tcp://[host]:port")
    return Address(url, host=host, port=int(port))


def _encoded(path: str) -> bytes:
    """Return the bytes of a path, as the kernel takes them."""
    return os.fsencode(path)


@contextlib.contextmanager
def _short(path: str, *, parent: bool) -> Iterator[str]:
    """Give a path to the same file that fits into a socket address, while the block runs.

    ``parent``: go through the folder, because the file is not there yet.
    """
    if path.startswith("\0") or len(_encoded(path)) <= LONGEST_PATH:
        yield path
        return
    folder, name = os.path.split(path)
    handle = os.open((folder or ".") if parent else path, os.O_PATH | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{handle}" + (f"/{name}" if parent else "")
        if len(_encoded(short)) > LONGEST_PATH:
            raise Invalid(
                f"the socket name {name!r} has {len(_encoded(name))} bytes, too many for a socket address",
                remedy="choose a name below 80 bytes",
            )
        yield short
    finally:
        os.close(handle)


def _unreachable(address: Address, error: OSError) -> MeshError:
    """Return the error for a dial that failed with ``error``."""
    where = address.url
    if address.unix:
        if error.errno == errno.ENOENT:
            return Unavailable(
                f"nobody listens on {where}: there is no such socket",
                remedy="start the server, or check the path",
            )
        if error.errno == errno.ECONNREFUSED:
            return Unavailable(
                f"nobody listens on {where}: the connection was refused", remedy="start the server again"
            )
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Unauthorized(
                f"no permission to connect to {where}",
                remedy="run as the user that owns the socket, or as root",
            )
    elif error.errno == errno.ECONNREFUSED:
        return Unavailable(
            f"nobody listens on {where}: the connection was refused",
            remedy="start the server, or check host and port",
        )
    return Unavailable(
        f"cannot connect to {where}: {os.strerror(error.errno or 0)}", remedy="check the address"
    )


async def dial(address: Address, timeout: float) -> socket.socket:
    """Return a connected, non-blocking socket.

    Raises Unavailable at once when the address refuses or is not there, TimedOut after ``timeout`` seconds.
    """
    limit = asyncio.get_running_loop().time() + timeout
    try:
        async with asyncio.timeout_at(limit):
            return await (_dial_unix(address) if address.unix else _dial_tcp(address, limit))
    except TimeoutError:
        raise TimedOut(
            f"{address.url} did not take a connection within {timeout:g} s",
            remedy="check that the server is alive and reachable",
        ) from None


async def _dial_unix(address: Address) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, _STREAM)
    pause = FIRST_PAUSE
    try:
        while True:
            try:
                with _short(address.path, parent=False) as path:
                    sock.connect(path)
            except (
                BlockingIOError
            ):  # its backlog is full: unlike tcp, nothing was started that one could await
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                return sock
    except OSError as error:
        sock.close()
        raise _unreachable(address, error) from error
    except BaseException:
        sock.close()
        raise


async def _dial_tcp(address: Address, limit: float) -> socket.socket:
    """Try the addresses of the host one after the other, each with its share of the time that is left."""
    loop = asyncio.get_running_loop()
    targets = await _resolve(address)
    last = OSError(errno.EADDRNOTAVAIL, "no address")
    for place, (family, target) in enumerate(targets):
        sock = socket.socket(family, _STREAM)
        share = (limit - loop.time()) / (len(targets) - place)
        try:
            async with asyncio.timeout(share):
                await loop.sock_connect(sock, target)
        except TimeoutError:
            sock.close()
            if place == len(targets) - 1:
                raise
        except OSError as error:
            sock.close()
            last = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise _unreachable(address, last) from last


async def _resolve(address: Address) -> list[tuple[int, tuple[str, int]]]:
    """Return families and addresses of a host; literals without asking anybody."""
    host = address.host or "localhost"
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            socket.inet_pton(family, host)
            return [(family, (host, address.port))]
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(
            f"the host of {address.url} has no address: {error.strerror}",
            remedy="check the name and the resolver",
        ) from error
    return [(family, (str(target[0]), address.port)) for family, _, _, _, target in found]


def listen(address: Address, mode: int) -> socket.socket:
    """Return a listening, non-blocking socket; a unix socket's file gets ``mode``.

    The file of a dead listener is replaced; raises Conflict where a live one is, Unavailable otherwise.
    """
    try:
        return _listen_unix(address, mode) if address.unix else _listen_tcp(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"cannot listen on {address.url}: it is in use",
                remedy="stop the other server or take another address",
            ) from error
        raise Unavailable(
            f"cannot listen on {address.url}: {os.strerror(error.errno or 0)}",
            remedy="check that the address belongs to this machine and that you may use it",
        ) from error


def _listen_unix(address: Address, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, _STREAM)
    try:
        if not address.abstract:
            _remove_stale(address)
            os.fchmod(sock.fileno(), mode)  # before bind, so that the file never has a wider mode
        with _short(address.path, parent=True) as path:
            sock.bind(path)
            if not address.abstract:
                Path(path).chmod(mode)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _remove_stale(address: Address) -> None:
    """Unlink the socket file that a dead listener left; raises Conflict when it lives or is no socket."""
    try:
        found = Path(address.path).stat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise Conflict(
            f"cannot listen on {address.url}: a file that is no socket is in the way",
            remedy="choose another path",
        )
    with socket.socket(socket.AF_UNIX, _STREAM) as probe:
        try:
            with _short(address.path, parent=False) as path:
                probe.connect(path)
        except ConnectionRefusedError:
            Path(address.path).unlink()
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # a full backlog belongs to a live listener
    raise Conflict(
        f"cannot listen on {address.url}: a live server is there already",
        remedy="stop it first, or choose another path",
    )


def _listen_tcp(address: Address) -> socket.socket:
    """Listen on one host, or, without a host, on all addresses of both families."""
    host = address.host
    if host:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, target = found[0][0], found[0][4]
    else:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        target = ("::" if dual else "0.0.0.0", address.port)  # noqa: S104 - asked for by a URL without host
    sock = socket.socket(family, _STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(bool(host)))
        sock.bind(target)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def listening_url(address: Address, sock: socket.socket) -> str:
    """Return the URL under which ``sock`` is reached: the given one, with the port that the kernel chose."""
    if address.unix or address.port:
        return address.url
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"tcp://{host}:{sock.getsockname()[1]}"
