"""Network namespaces: open them, work inside them, make and delete named ones.

Nothing here keeps a socket or a descriptor of somebody's namespace beyond a call: a forgotten one keeps a
dead pod's namespace, and the peers of its interfaces, alive.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from nsmesh.core.errors import Conflict, Exhausted, Internal, Invalid, MeshError, NotFound, Unauthorized
from nsmesh.core.process import stat_of

T = TypeVar("T")

RUN_NETNS = "/run/netns"
"""Where named namespaces live, as for ``ip netns``."""

CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SHARED = 0x1000, 0x4000, 0x100000
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)

_PRIVILEGE = "run as root, or with CAP_SYS_ADMIN and CAP_NET_ADMIN"


def path_of(location: str) -> str:
    """Return the path that ``location`` (a path or a ``file:///...`` URL) stands for; raises Invalid."""
    if location.startswith("/"):
        return location
    url = urlsplit(location)
    if url.scheme == "file" and url.path.startswith("/"):
        return unquote(url.path)
    raise Invalid(
        f"{location!r} is no network namespace that can be opened here",
        remedy="give an absolute path or a file:///... URL; an inode:// URL needs its descriptor first",
    )


def of_pid(pid: int) -> str:
    """Return the path of the namespace that process ``pid`` lives in."""
    return f"/proc/{pid}/ns/net"


def named() -> list[str]:
    """Return the paths of all named namespaces of this host, sorted."""
    try:
        return sorted(map(str, Path(RUN_NETNS).iterdir()))
    except FileNotFoundError:
        return []


def of_processes() -> list[str]:
    """Return one path for each namespace that some process lives in (those that may be looked at)."""
    found: dict[tuple[int, int], str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        path = f"{process}/ns/net"
        with suppress(OSError):
            found.setdefault(identity(path), path)
    return list(found.values())


def identity(namespace: str | int) -> tuple[int, int]:
    """Return device and inode of a path or descriptor; raises OSError.

    Good for comparing namespaces that both live now. A later one may get the same numbers.
    """
    status = stat_of(namespace) if isinstance(namespace, str) else os.fstat(namespace)
    return status.st_dev, status.st_ino


def open_netns(location: str) -> int:
    """Open a namespace and return its descriptor, which the caller closes.

    Raises NotFound, Unauthorized, Invalid or Exhausted.
    """
    path = path_of(location)
    try:
        # without O_NONBLOCK a path that leads to a pipe would hold everybody up
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _explain(error, f"cannot open the network namespace {path}") from error


def current() -> int:
    """Open the namespace of the calling thread and return its descriptor, which the caller closes."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(namespace: int) -> None:
    """Move the calling thread into the namespace behind a descriptor; raises MeshError."""
    if _libc.setns(namespace, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise _explain(OSError(number, os.strerror(number)), "cannot enter the network namespace")


@contextmanager
def inside(namespace: int, home: int | None = None) -> Iterator[None]:
    """Be in ``namespace`` for the length of a ``with`` block, in this thread, and come back.

    ``home`` is the descriptor to come back to; without it the thread's present namespace is opened for that.
    Never await inside: the rest of the program would run in the wrong namespace.
    """
    back = current() if home is None else home
    try:
        enter(namespace)
        try:
            yield
        finally:
            enter(back)
    finally:
        if home is None:
            os.close(back)


def call_in(location: str, function: Callable[[], T]) -> T:
    """Run ``function`` inside the namespace at a path or URL, in the calling thread; return its result."""
    namespace = open_netns(location)
    try:
        with inside(namespace):
            return function()
    finally:
        os.close(namespace)


def create(name: str) -> str:
    """Make a named namespace with its loopback up and return its path.

    Raises Invalid for an unusable name, Conflict for one that exists, Unauthorized without the privilege.
    """
    path = _named_path(name)
    try:
        _folder()
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise Conflict(
            f"the network namespace {name} exists already", remedy="choose another name or delete it first"
        ) from error
    except OSError as error:
        raise _explain(error, f"cannot make the network namespace {name}") from error
    failed = _in_new_thread(lambda: _unshare_onto(path))
    if failed is not None:
        Path(path).unlink()
        raise _explain(failed, f"cannot make the network namespace {name}") from failed
    return path


def _folder() -> None:
    """Make the folder of named namespaces, as ``ip netns`` does: mounted on itself, and shared.

    Else ``ip netns`` would do it later, over the namespaces that are there; they could not be deleted then.
    Raises OSError.
    """
    Path(RUN_NETNS).mkdir(mode=0o755, parents=True, exist_ok=True)
    if _shared():
        return
    descriptor = os.open(RUN_NETNS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # ``ip netns`` takes the same lock
        folder = RUN_NETNS.encode()
        if not _shared() and _libc.mount(folder, folder, b"none", MS_BIND | MS_REC, None) == 0:
            _shared()
    finally:
        os.close(descriptor)


def _shared() -> bool:
    """Share the folder of named namespaces; return whether it is a mount. Raises OSError."""
    if _libc.mount(b"", RUN_NETNS.encode(), b"none", MS_SHARED | MS_REC, None) == 0:
        return True
    number = ctypes.get_errno()
    if number != errno.EINVAL:
        raise OSError(number, f"mount {RUN_NETNS}")
    return False


def delete(name: str) -> None:
    """Delete a named namespace; one that does not exist is deleted already."""
    path = _named_path(name)
    if not os.path.lexists(path):
        return
    what = f"cannot delete the network namespace {name}"
    if _libc.umount2(path.encode(), MNT_DETACH) != 0 and ctypes.get_errno() != errno.EINVAL:
        number = ctypes.get_errno()
        raise _explain(OSError(number, os.strerror(number)), what)
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise _explain(error, what) from error


@contextmanager
def temporary(*names: str) -> Iterator[list[str]]:
    """Make named namespaces for the length of a ``with`` block; yield their paths in order."""
    made: list[str] = []
    try:
        for name in names:
            create(name)
            made.append(name)
        yield [_named_path(name) for name in made]
    finally:
        for name in made:
            delete(name)


def _named_path(name: str) -> str:
    if not name or "/" in name or name in {".", ".."} or "\0" in name:
        raise Invalid(f"{name!r} cannot name a network namespace", remedy="use a plain file name")
    return f"{RUN_NETNS}/{name}"


def tried_apart(probe: Callable[[], str]) -> str:
    """Return what ``probe`` says in a namespace that nobody sees, in its own thread; or why it cannot."""
    said: list[str] = []

    def run() -> None:
        try:
            leave()
            said.append(probe())
        except OSError as error:
            said.append(str(error))

    thread = threading.Thread(target=run, name="probe")
    thread.start()
    thread.join()
    return said[0] if said else "trying it failed"


def leave() -> None:
    """Give the calling thread a namespace of its own, new and empty; the thread must end then.

    Raises OSError.
    """
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def _unshare_onto(path: str) -> None:
    """Give the calling thread a namespace of its own and bind it to ``path``; the thread must end then."""
    leave()
    _loopback_up()
    if _libc.mount(b"/proc/thread-self/ns/net", path.encode(), b"none", MS_BIND, None) != 0:
        raise OSError(ctypes.get_errno(), "mount")


def _loopback_up() -> None:
    """Set ``lo`` up, as the runtime of a pod does: without it a workload cannot ping its own address."""
    from nsmesh.datapath import rtnetlink  # noqa: PLC0415 - netlink itself needs this module
    from nsmesh.datapath.netlink import Batch, Netlink  # noqa: PLC0415 - the same

    with Netlink() as netlink:
        batch = Batch()
        batch.put(rtnetlink.set_up(1))
        netlink.send(batch)


def _in_new_thread(work: Callable[[], None]) -> OSError | None:
    failures: list[OSError] = []

    def run() -> None:
        try:
            work()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    return failures[0] if failures else None


def _explain(error: OSError, what: str) -> MeshError:
    text = f"{what}: {os.strerror(error.errno or 0)}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ESRCH | errno.ELOOP | errno.EBADF:
            return NotFound(text, remedy="check that the workload still runs and that its path is seen here")
        case errno.EPERM | errno.EACCES:
            return Unauthorized(text, remedy=_PRIVILEGE)
        case errno.EINVAL | errno.ENXIO | errno.EISDIR:
            return Invalid(text, remedy="give the path of a network namespace, such as /proc/<pid>/ns/net")
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM | errno.ENOSPC:
            return Exhausted(text, remedy="raise the limit (ulimit -n, user.max_net_namespaces) or free some")
        case _:
            return Internal(text)
