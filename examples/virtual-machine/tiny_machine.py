"""Runs tiny virtual machines whose network card is a vhost-user socket.

    python3 tiny_machine.py start NAME --wire CONNECTION   boot it, and give it that wire's addresses
    python3 tiny_machine.py run NAME COMMAND               what the machine's shell says to a command
    python3 tiny_machine.py stop NAME

Needs ``qemu-system-x86_64``; no KVM: qemu interprets the machine's instructions (TCG). Its memory is a memfd
that it shares, which is what vhost-user needs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_image import READY, Image, MissingError, image

QEMU = "qemu-system-x86_64"
MEMORY = 128
"""MiB of a machine."""
BOOT = 120.0
"""Seconds that a boot may take; on a quiet machine it takes four."""
PATIENCE = 30.0
"""Seconds that a command in a machine may take."""
_KERNEL_LINE = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"
_BOOTED = re.compile(re.escape(READY.encode()) + rb"\r?\n")


class MachineError(Exception):
    """A machine that does not do what it shall; the text says which and why."""


@dataclass(frozen=True)
class Card:
    """A network card, whose frames go through a vhost-user socket.

    ``listens``: qemu listens at ``path``; else it connects, and again every second when the other side went
    away. ``queues``: pairs of queues; the machine has as many processors.
    """

    path: str
    listens: bool = False
    queues: int = 1
    mac: str = "02:00:00:00:10:01"

    def options(self) -> list[str]:
        """Return the options of qemu."""
        role = "server=on,wait=off" if self.listens else "reconnect=1"
        pairs = f",queues={self.queues}" if self.queues > 1 else ""
        several = ",mq=on" if self.queues > 1 else ""
        # no message-signalled interrupts: with them qemu 7.2 ends in TCG when vhost-user starts
        device = f"virtio-net-pci,netdev=n0,mac={self.mac},romfile=,vectors=0{several}"
        return [
            *("-chardev", f"socket,id=c0,path={self.path},{role}"),
            *("-netdev", f"vhost-user,id=n0,chardev=c0{pairs}"),
            *("-device", device, "-smp", str(self.queues)),
        ]


class Machine:
    """One machine, by the folder of its console, pid and log: whoever has the folder can use it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.console = folder / "console"

    @property
    def pid(self) -> int:
        """Its process, or 0."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.folder / "pid").read_text())
            if str(self.console).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        return 0

    def start(self, card: Card, made: Image | None = None) -> None:
        """Boot, and return when its shell reads commands. Raises MissingError and MachineError."""
        if shutil.which(QEMU) is None:
            raise MissingError(f"{QEMU} is not installed: apt-get install qemu-system-x86")
        if self.pid:
            raise MachineError(f"the machine in {self.folder} runs already")
        made = made or image()
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in (self.console, *([Path(card.path)] if card.listens else [])):
            stale.unlink(missing_ok=True)
        with (self.folder / "log").open("wb") as log:
            command = [QEMU, *_computer(self.console, made), *card.options()]
            process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        (self.folder / "pid").write_text(f"{process.pid}\n")
        try:
            self._await_shell(process)
        except BaseException:
            self.kill()
            process.wait()
            raise

    def _await_shell(self, process: subprocess.Popen[bytes]) -> None:
        """Read the console until its shell is there: what is sent to it before that, gets stuck."""
        end = time.monotonic() + BOOT
        try:
            with self._line(end) as line:
                _until(line, _BOOTED, end)
        except OSError as error:
            said = (self.folder / "log").read_text(errors="replace").strip() or f"it says nothing ({error})"
            state = "did not boot" if process.poll() is None else f"ended with {process.returncode}"
            raise MachineError(f"the machine in {self.folder} {state}: {said}") from error

    @contextlib.contextmanager
    def _line(self, end: float) -> Iterator[socket.socket]:
        """Yield a connection to the console, which may not be there yet."""
        with socket.socket(socket.AF_UNIX) as line:
            while True:
                try:
                    line.connect(str(self.console))
                    break
                except OSError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.02)
            yield line

    def run(self, command: str, patience: float = PATIENCE) -> str:
        """Return what a command, of one line, prints, with its errors.

        Two kilobytes at most: qemu drops what nobody reads at once. Raises MachineError where it fails or
        takes long.
        """
        mark = f"~~{time.monotonic_ns()}~~"
        end = time.monotonic() + patience
        try:
            with self._line(end) as line:
                line.sendall(f"{{ {command}; }} 2>&1; echo {mark} $?\n".encode())
                found = _until(line, re.compile(rf"{mark} (\d+)\n".encode()), end)
        except OSError as error:
            raise MachineError(
                f"the machine in {self.folder} has no answer to {command!r}: {error}"
            ) from error
        text = found.string[: found.start()].decode(errors="replace")
        if found[1] != b"0":
            raise MachineError(f"{command!r} ended with {int(found[1])} in the machine:\n{text}")
        return text

    def reboot(self) -> None:
        """Have it boot again, as its own ``reboot`` does: the same process, the same card."""
        end = time.monotonic() + BOOT
        with self._line(end) as line:
            line.sendall(b"reboot -f\n")
            _until(line, _BOOTED, end)

    def kill(self) -> None:
        """End it at once, as a host that loses it would; it is gone then, with its sockets."""
        if pid := self.pid:
            os.kill(pid, signal.SIGKILL)
            while not _is_over(pid):
                time.sleep(0.01)
        (self.folder / "pid").unlink(missing_ok=True)


def _is_over(pid: int) -> bool:
    """Whether a process has ended; that of a child stays as a zombie until somebody waits for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def _computer(console: Path, made: Image) -> list[str]:
    # what the kernel says goes to a file; commands go by virtio, since bytes to a serial line may get stuck
    options = f"""
        -M q35 -accel tcg,thread=multi -cpu qemu64,+rdrand -nodefaults -display none
        -m {MEMORY}M -object memory-backend-memfd,id=m0,size={MEMORY}M,share=on -numa node,memdev=m0
        -serial file:{console.with_name("kernel.log")} -chardev socket,id=s0,path={console},server=on,wait=off
        -device virtio-serial-pci -device virtconsole,chardev=s0
        -kernel {made.kernel} -initrd {made.files}
    """
    return [*options.split(), "-append", _KERNEL_LINE]


def _until(line: socket.socket, wanted: re.Pattern[bytes], end: float) -> re.Match[bytes]:
    """Read until it comes; raises TimeoutError with what was seen instead, and ConnectionError."""
    said = b""
    while not (found := wanted.search(said)):
        line.settimeout(max(end - time.monotonic(), 0.001))
        try:
            part = line.recv(65536)
        except TimeoutError:
            raise TimeoutError(f"it says {said[-2000:]!r} so far") from None
        if not part:
            raise ConnectionError(f"the console was closed after {said[-2000:]!r}")
        said += part.replace(b"\r", b"")
    return found


def addressing(row: dict[str, Any], interface: str = "eth0") -> list[str]:
    """Return the commands that give a machine what the mesh says of its wire (``nsm get connections``)."""
    lines = [f"ip link set {interface} up"]
    if row["mtu"]:
        lines.append(f"ip link set {interface} mtu {row['mtu']}")
    lines += [f"ip address add {address} dev {interface}" for address in row["address"]]
    lines += [f"ip route add {address} dev {interface}" for address in row["peer_address"]]
    known = set(row["peer_address"])
    gateway = next((address.partition("/")[0] for address in row["peer_address"]), "")
    for route in row["routes"]:
        prefix, _, via = route.partition(" via ")
        if prefix not in known:
            lines.append(f"ip route add {prefix} via {via or gateway} dev {interface}")
    return lines


def wire_of(connection: str) -> dict[str, Any]:
    """Return a connection of the mesh as ``nsm get connections`` has it. Raises MachineError."""
    command = ["nsm", "get", "connections", "-o", "json"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        raise MachineError(told.stderr.strip())
    rows = [row for row in json.loads(told.stdout) if row["id"] == connection]
    if not rows or not rows[0]["socket"]:
        raise MachineError(f"there is no connection {connection} that ends in a socket")
    found: dict[str, Any] = rows[0]
    return found


def place_of(name: str) -> Path:
    """Return the folder of a machine that was started by name, beside a mesh."""
    return Path("/run") / f"tiny-machine-{os.environ.get('NSM_MESH') or 'default'}-{name}"


def _started(arguments: argparse.Namespace) -> Iterator[str]:
    row = wire_of(arguments.wire)
    machine = Machine(place_of(arguments.name))
    machine.start(Card(row["socket"], queues=arguments.queues))
    machine.run(" && ".join(addressing(row)))
    yield f"{arguments.name} is up: {', '.join(row['address'])} at {row['socket']}"


def _ran(arguments: argparse.Namespace) -> Iterator[str]:
    yield Machine(place_of(arguments.name)).run(" ".join(arguments.command)).rstrip("\n")


def _stopped(arguments: argparse.Namespace) -> Iterator[str]:
    folder = place_of(arguments.name)
    Machine(folder).kill()
    shutil.rmtree(folder, ignore_errors=True)
    yield f"{arguments.name} is gone"


def main(words: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="Tiny virtual machines on vhost-user wires.")
    verbs = parser.add_subparsers(required=True)
    for verb, work in (("start", _started), ("run", _ran), ("stop", _stopped)):
        one = verbs.add_parser(verb)
        one.set_defaults(work=work)
        one.add_argument("name")
        if verb == "start":
            one.add_argument("--wire", required=True, help="id of a connection whose mechanism is VHOST_USER")
            one.add_argument("--queues", type=int, default=1, help="pairs of queues")
        elif verb == "run":
            one.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(words)
    try:
        for said in arguments.work(arguments):
            print(said)
    except (MachineError, MissingError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
