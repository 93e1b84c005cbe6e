"""A scratch mesh for documents that speak of the mesh ``default``."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from docs_console import BIN, ROOT, Shell
from tiny_machine import Machine

OWN_NAMES = ("laptop", "campus")
"""Network namespaces that documents make by themselves."""


@contextmanager
def scratch_shell(folder: Path = ROOT) -> Iterator[Shell]:
    """Yield a shell whose mesh is its own; whatever happens, nothing of it is left behind."""
    mesh = f"d{uuid.uuid4().hex[:8]}"
    names = {
        f"{word}default": f"{word}{mesh}"
        for word in ("mesh ", "nsmesh/", "nsmgr-", "forwarder-", "registry-")
    }
    names |= {"default.": f"{mesh}."} | {name: f"{name}-{mesh}" for name in OWN_NAMES}
    shell = Shell(folder, names, {"NSM_MESH": mesh})
    try:
        yield shell
    finally:
        shell.close()
        for place in Path("/run").glob(f"tiny-machine-{mesh}-*"):
            Machine(place).kill()
            shutil.rmtree(place, ignore_errors=True)
        command = [BIN / "nsm", "-q", "--mesh", mesh, "down", "--purge"]
        if subprocess.run(command, check=False, capture_output=True, timeout=60).returncode:
            terminate(Path("/run/nsmesh", mesh, "lock"))
        for name in OWN_NAMES:
            inside = subprocess.run(
                ["ip", "netns", "pids", names[name]], check=False, capture_output=True, text=True
            )
            for pid in inside.stdout.split():
                with suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", names[name]], check=False, capture_output=True)


def terminate(lock: Path) -> None:
    """Tell the daemon that holds a lock to go down: of use where the command does not work at all."""
    with suppress(OSError, ValueError):
        os.kill(int(lock.read_text().split()[0]), signal.SIGTERM)
