"""Makes what a tiny virtual machine boots: the distribution's kernel, and a file system of busybox in memory.

``python3 tiny_image.py`` makes it and prints where it is. Needs ``busybox``; takes ``iperf3`` along where it
is installed. The kernel is unpacked from the distribution's package, which is fetched once and not installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

KERNEL = "linux-image-cloud-amd64"
"""The package that depends on the newest kernel for machines without hardware of their own."""
WANTED = ("virtio_pci", "virtio_console", "virtio_net")
"""Modules of the kernel that are loaded, and with them those that they need."""
PROGRAMS = ("busybox", "iperf3")
READY = "machine is ready"
"""What the machine's console says when its shell reads commands."""
_INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
exec </dev/hvc0 >/dev/hvc0 2>&1
stty -echo -onlcr
echo "{ready}"
while :; do sh -c 'while read -r line; do eval "$line"; done'; done
"""
_DIRECTORY, _PROGRAM, _FILE = 0o40755, 0o100755, 0o100644


class MissingError(Exception):
    """Something that is needed is not here; the text says what, and what to do."""


@dataclass(frozen=True)
class Image:
    """Paths of a kernel and of its initial file system."""

    kernel: Path
    files: Path


@dataclass
class _Tree:
    """Files of a machine: an archive in the format that the kernel reads (cpio, "newc")."""

    entries: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def add(self, path: str, data: bytes, mode: int = _FILE) -> None:
        for parent in reversed(PurePosixPath(path).parents[:-1]):
            self.entries.setdefault(str(parent), (_DIRECTORY, b""))
        self.entries.setdefault(path, (mode, data))

    def program(self, path: str) -> None:
        """Add a program of this host to ``bin``, with the libraries that its loader would take."""
        self.add(f"bin/{Path(path).name}", Path(path).read_bytes(), _PROGRAM)
        told = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        for library in re.findall(r"(/\S+) \(0x", told.stdout):
            self.add(library.lstrip("/"), Path(library).read_bytes(), _PROGRAM)

    def packed(self) -> bytes:
        out = bytearray()
        for number, (path, (mode, data)) in enumerate([*self.entries.items(), ("TRAILER!!!", (0, b""))]):
            name = path.encode() + b"\0"
            numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
            out += b"070701" + b"".join(b"%08x" % one for one in numbers) + name
            out += bytes(-len(out) % 4) + data
            out += bytes(-len(out) % 4)
        return bytes(out)


def cache() -> Path:
    """Return the folder in which images are kept."""
    return Path(os.environ.get("NSMESH_LAB") or Path.home() / ".cache" / "nsmesh-lab") / "machine"


def image() -> Image:
    """Return the image of this host's distribution, made now if it was not before.

    Raises MissingError without busybox, or where the package cannot be had.
    """
    folder = cache()
    with having(folder) as kernel:
        files = folder / "files.cpio"
        new = files.with_suffix(".new")
        new.write_bytes(packed(folder, WANTED, _INIT.replace("{ready}", READY)))
        new.replace(files)  # a machine that boots just now goes on with the old one
    return Image(kernel, files)


@contextlib.contextmanager
def having(folder: Path) -> Iterator[Path]:
    """Yield the distribution's kernel in a folder, fetched now if it was not before; others wait meanwhile.

    Raises MissingError where the package cannot be had.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield next(folder.glob("boot/vmlinuz-*"), None) or _fetched(folder)


def _fetched(folder: Path) -> Path:
    """Fetch the kernel's package, and unpack it."""
    for tool in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise MissingError(f"{tool} is not here: only the kernel of Debian or Ubuntu is known")
    package = _newest()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        place.chmod(0o755)
        _run("apt-get", "download", package, cwd=place)
        _run("dpkg-deb", "-x", str(next(place.glob("*.deb"))), "out", cwd=place)
        (place / "out" / "lib").replace(folder / "lib")
        (place / "out" / "boot").replace(folder / "boot")
    return next(folder.glob("boot/vmlinuz-*"))


def _newest() -> str:
    depends = ["apt-cache", "depends", KERNEL]
    for _ in range(2):
        told = subprocess.run(depends, capture_output=True, text=True, check=False)
        found = re.search(r"Depends: (linux-image-\S+)", told.stdout)
        if found:
            return found[1]
        _run("apt-get", "update", "-q")
    raise MissingError(f"there is no package {KERNEL} here")


def _run(*command: str, cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it does not say why"]
        raise MissingError(f"{' '.join(command)}: {said[-1]}")


def packed(folder: Path, wanted: Iterable[str], init: str) -> bytes:
    """Return a file system with busybox, the modules ``wanted`` of the kernel in a folder, and ``init``.

    In the text of ``init`` ``{modules}`` are those modules, in the order in which they can be loaded. Raises
    MissingError without busybox.
    """
    programs = [path for name in PROGRAMS if (path := shutil.which(name))]
    if not programs or Path(programs[0]).name != PROGRAMS[0]:
        raise MissingError("busybox is not installed: apt-get install busybox-static")
    tree = _Tree()
    for place in ("dev", "proc", "sys", "tmp"):
        tree.entries[place] = (_DIRECTORY, b"")
    found = {path.stem.replace("-", "_"): path for path in folder.glob("lib/modules/**/*.ko")}
    modules: list[str] = []
    for name in wanted:
        _with_its_needs(name, found, modules)
    for name in modules:
        tree.add(f"modules/{name}.ko", found[name].read_bytes())
    for path in programs:
        tree.program(path)
    tree.add("init", init.replace("{modules}", " ".join(modules)).encode(), _PROGRAM)
    return tree.packed()


def _with_its_needs(name: str, found: dict[str, Path], modules: list[str]) -> None:
    """Append a module behind those that it depends on; what the kernel has built in has no file."""
    if name not in found or name in modules:
        return
    needs = re.search(rb"\0depends=([^\0]*)\0", found[name].read_bytes())
    for need in needs[1].decode().split(",") if needs else ():
        _with_its_needs(need.replace("-", "_"), found, modules)
    modules.append(name)


if __name__ == "__main__":
    try:
        made = image()
    except MissingError as error:
        sys.exit(f"error: {error}")
    print(made.kernel, made.files)
