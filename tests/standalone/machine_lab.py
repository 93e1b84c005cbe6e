"""For tests of virtual machines: a tiny one on a wire, whatever becomes of it."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mesh_lab import Lab, until
from tiny_image import MissingError, image
from tiny_machine import QEMU, Card, Machine, MachineError, addressing

from nsmesh.datapath import ovs_programs
from nsmesh.datapath.ovs_programs import running

NEEDED = (QEMU, "busybox", "iperf3", "tcpdump")
PORT = "8080"
"""What the firewall of the example lets pass."""


def lacks() -> str:
    """Return why this host has no machines on wires, or nothing."""
    absent = [name for name in NEEDED if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ovs_programs.lacks_dpdk()


def made_image():
    """Return the machine's image; skips where its kernel cannot be had."""
    try:
        return image()
    except MissingError as error:
        pytest.skip(f"no image of a machine: {error}")


class Wired:
    """A mesh with the article's firewall and gateway, and a machine as their client, booted when needed."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.machine = Machine(folder)
        self.gateway = f"{lab.mesh}.vpn-gateway"

    @property
    def row(self):
        return self.lab.row("connections", "machine-0")

    @property
    def peer(self) -> str:
        """The gateway's address on the machine's wire."""
        return self.row["peer_address"][0].partition("/")[0]

    @property
    def switch(self) -> int:
        return running(self.lab.run / "ovs" / "ovs-vswitchd.pid", "ovs-vswitchd")

    def held(self) -> tuple[int, int]:
        """Return how many event descriptors and shared memories the switch has: those of machines' rings.

        Its sockets are not counted: those to the kernel and to who asks it come and go by themselves.
        """
        maps = Path(f"/proc/{self.switch}/maps").read_text().count("/memfd:")
        kinds = []
        for file in Path(f"/proc/{self.switch}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                kinds.append(str(file.readlink()))
        return kinds.count("anon_inode:[eventfd]"), maps

    def up(self, *, boot: bool = True) -> Machine:
        """Return the machine, which answers and has its addresses."""
        if not self.machine.pid and boot:
            self.machine.start(Card(self.row["socket"], queues=2), made_image())
        if "inet " not in self.machine.run("ip address show eth0"):
            self.machine.run(" && ".join(addressing(self.row)))
        return self.machine

    def passes(self, address: str, seconds: float = 60) -> None:
        """Wait until the machine's pings to an address come back."""
        seen = []

        def pinged() -> bool:
            try:
                seen[:] = [self.machine.run(f"ping -c 1 -W 1 {address}")]
            except MachineError as error:
                seen[:] = [str(error)]
                return False
            return True

        until(pinged, seconds, lambda: f"{seen[0]}\n{self.told()}")

    def told(self) -> str:
        """Return what qemu and the switch say."""
        logs = (self.machine.folder / "log", self.lab.run / "ovs" / "ovs-vswitchd.log")
        return "\n".join(path.read_text(errors="replace")[-2000:] for path in logs if path.exists())

    @contextmanager
    def program(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Run a program in the gateway's namespace while the block runs."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.gateway, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def iperf_server(self) -> Iterator[None]:
        """Have an iperf3 server behind the firewall, which is ready."""
        with self.program("iperf3", "-s", "-p", PORT, "--forceflush") as server:
            assert server.stdout
            while "listening" not in (line := server.stdout.readline()):
                assert line, "iperf3 ended"
            yield

    def counted(self, name: str) -> int:
        """Return one counter of the gateway's TCP or UDP, such as TcpInCsumErrors."""
        command = ["ip", "netns", "exec", self.gateway, "nstat", "-asz", name]
        line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
        return int(line.split()[1])


def interrupt(process: subprocess.Popen[str]) -> str:
    """End a program by SIGINT, and return what it has said."""
    process.send_signal(signal.SIGINT)
    return process.communicate(timeout=20)[0]
