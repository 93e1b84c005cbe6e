"""A pod as the kernel of its node has it: a process in a cgroup of the shape that a kubelet makes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
from pathlib import Path

from kubernetes_lab import until

PROC = Path("/proc")


def cgroup_root() -> Path:
    """Return the cgroup below which pods are made: of version 2, or one hierarchy of version 1."""
    root = Path("/sys/fs/cgroup")
    return root if (root / "cgroup.controllers").exists() else root / "pids"


def missing() -> str:
    """Say why no pods can be played here."""
    if os.geteuid() != 0:
        return "needs root"
    return "" if os.access(cgroup_root(), os.W_OK) else f"{cgroup_root()} cannot be written"


class Pod:
    """A pod of the node, with what runs in it."""

    def __init__(self, folder: Path, namespace: str, name: str, uid: str) -> None:
        self.namespace, self.name, self.uid = namespace, name, uid
        self.log = folder / f"{name}.log"
        self._cgroup = cgroup_root() / "kubepods/besteffort" / f"pod{uid}"
        self._container = self._cgroup / secrets.token_hex(32)
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, own_network: bool = True, **environment: str) -> subprocess.Popen[bytes]:
        """Start a process of the pod, in a new network namespace."""
        self._container.mkdir(parents=True, exist_ok=True)
        procs = str(self._container / "cgroup.procs")
        words = ["sh", "-c", 'echo 0 >"$0" && exec "$@"', procs]
        words += ["unshare", "--net"] if own_network else []
        log = self.log.open("ab")
        environ = {**os.environ, **environment}
        process = subprocess.Popen([*words, *command], env=environ, stdout=log, stderr=log)
        log.close()
        self._processes.append(process)
        self.again = lambda: self.start(*command, own_network=own_network, **environment)
        return process

    def stop(self) -> None:
        """Kill its last process; :attr:`again` starts the same."""
        process = self._processes.pop()
        process.kill()
        process.wait()

    def restart(self) -> None:
        """Kill its last process, and start the same again."""
        self.stop()
        self.again()

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self._processes[0].pid

    def kill(self) -> None:
        """End all that runs in it, and remove its cgroup, as a kubelet does."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
        self._processes.clear()
        for folder in (self._container, self._cgroup):
            if folder.exists():
                until(f"{folder} is empty", lambda folder=folder: _removed(folder))

    def inside(self, *command: str, check: bool = True) -> str:
        """Run a command in the pod's network."""
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout

    def addresses(self, interface: str) -> list[str]:
        """Return the addresses of an interface of the pod; empty where it has none, or is not there."""
        found = json.loads(self.inside("ip", "-j", "addr", "show", "dev", interface, check=False) or "[]")
        return [f"{one['local']}/{one['prefixlen']}" for link in found for one in link["addr_info"]]

    def index(self, interface: str) -> int:
        """Return the index of an interface, by which it is told from one that was made anew."""
        return int(json.loads(self.inside("ip", "-j", "link", "show", "dev", interface))[0]["ifindex"])


def _removed(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        folder.rmdir()
    return not folder.exists()


def told(folder: Path) -> str:
    """Return the last lines of what all processes have logged in a folder."""
    logs = sorted(folder.glob("*.log"))
    return "\n".join(f"== {one.stem}\n" + "\n".join(one.read_text().splitlines()[-12:]) for one in logs)


def wired(pod: Pod, interface: str = "nsm-1") -> str:
    """Wait for the wire of a pod; return the address of its far end."""
    try:
        address = until(f"{pod.name} has a wire", lambda: pod.addresses(interface))[0]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{told(pod.log.parent)}") from error
    octets = address.partition("/")[0].split(".")
    far = ".".join([*octets[:3], str(int(octets[3]) ^ 1)])
    until("packets pass", lambda: pings(pod, far))
    return far


def pings(pod: Pod, address: str, *words: str) -> bool:
    """Whether an address answers a ping from within a pod."""
    done = pod.inside("ping", "-c", "1", "-W", "1", *words, address, check=False)
    return " 0% packet loss" in done
