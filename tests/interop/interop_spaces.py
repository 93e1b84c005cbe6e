"""Network namespaces of our own, as descriptors: nothing is left of them when the tests end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path


class NoNamespaces(Exception):
    """This machine lets us make none."""


@contextmanager
def namespaces(*names: str) -> Iterator[dict[str, Path]]:
    """Yield paths of fresh namespaces by name; they can be opened by this process only."""
    found: dict[str, Path] = {}
    with ExitStack() as stack:
        for name in names:
            descriptor = _namespace()
            stack.callback(os.close, descriptor)
            found[name] = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
        yield found


def _namespace() -> int:
    own = Path("/proc/self/ns/net").stat().st_ino
    flags = ["-n"] if os.geteuid() == 0 else ["-Urn"]
    child = subprocess.Popen(["unshare", *flags, "sleep", "60"], stderr=subprocess.DEVNULL)
    try:
        path = Path(f"/proc/{child.pid}/ns/net")
        for _ in range(500):
            if child.poll() is not None:
                break
            if path.stat().st_ino != own:
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            time.sleep(0.002)
        raise NoNamespaces("no network namespace can be made here")
    finally:
        child.kill()
        child.wait()
