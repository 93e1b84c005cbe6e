"""For tests with real second hosts: each has its own network, mounts, processes and host name.

A host is a set of namespaces with an empty /run and /var/lib, so that ``nsm`` runs there with its usual
directories and names. A veth joins two of them. Nothing of it is in the machine's own namespaces.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Self

from mesh_lab import NSM, Done, end, until

SETUP = """
set -e
hostname "$1"
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/lib
mkdir /run/netns
ip link set lo up
touch /run/ready
while :; do sleep 60 & wait $!; done  # the first process of a host buries the others' dead
"""


class Host:
    """One host, from its start to its end, with a mesh of the usual name."""

    def __init__(self, name: str) -> None:
        self.name = name
        kinds = ("--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child")
        self._unshare = subprocess.Popen(["unshare", *kinds, "bash", "-c", SETUP, "bash", name])
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        try:
            self.pid = int(until(lambda: children.read_text().split())[0])
            ready = Path(f"/proc/{self.pid}/root/run/ready")
            until(ready.exists, why=lambda: f"{name} did not start")
        except BaseException:
            end(self._unshare)
            raise

    @property
    def enter(self) -> list[str]:
        """What stands before a command that shall run there; its root is ours, even in a chroot."""
        kinds = ("--mount", "--net", "--pid", "--uts", "--ipc", "--root", "--wd")
        return ["nsenter", "--target", str(self.pid), *kinds, "--"]

    def run(self, *argv: str, given: str = "", **options: Any) -> Done:
        """Run a command there, and wait for its end."""
        done = subprocess.run(
            [*self.enter, *argv],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            **options,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command there."""
        pipe = subprocess.PIPE
        return subprocess.Popen([*self.enter, *argv], stdout=pipe, stderr=pipe, text=True)

    def nsm(self, *arguments: str, given: str = "") -> Done:
        """Run ``nsm`` there."""
        return self.run(*NSM, *arguments, given=given)

    def apply(self, text: str) -> Done:
        return self.nsm("apply", "-f", "-", given=text)

    def get(self, kind: str, *arguments: str) -> list[Any]:
        rows: list[Any] = self.nsm("get", kind, *arguments, "-o", "json").ok().json()
        return rows

    def events(self) -> str:
        """Return what its mesh has to tell, one event a line."""
        return "\n".join(row["text"] for row in self.get("events"))

    def token(self, *arguments: str) -> str:
        """Make a join token."""
        return self.nsm("-q", "token", "create", *arguments).ok().out.strip()

    def ping(self, workload: str, address: str, mesh: str = "default") -> bool:
        """Say whether a workload gets an answer."""
        inside = ("ip", "netns", "exec", f"{mesh}.{workload}", "ping", "-n", "-c", "1", "-W", "1", address)
        return self.run(*inside).code == 0

    def reaches(self, workload: str) -> bool:
        """Say whether a workload of the mesh gets an answer from the other end of its only wire."""
        rows = [row for row in self.get("connections") if row["client"] == workload]
        return bool(rows) and self.ping(workload, rows[0]["peer_address"][0].partition("/")[0])

    def kill_daemon(self) -> None:
        """Kill the daemon of its mesh as a crash would."""
        script = "read pid _ </run/nsmesh/default/lock; kill -9 $pid; while [ -d /proc/$pid ]; do :; done"
        self.run("bash", "-c", script)

    def close(self) -> None:
        """End the host with all that runs there."""
        end(self._unshare)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wired(one: Host, other: Host, net: str = "192.0.2", link: str = "eth0") -> None:
    """Join two hosts by a cable; they get the addresses .1 and .2."""
    ends = [("name", link, "netns", str(host.pid)) for host in (one, other)]
    subprocess.run(["ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1]], check=True, cwd="/")
    for number, host in enumerate((one, other), 1):
        host.run("ip", "address", "add", f"{net}.{number}/24", "dev", link).ok()
        host.run("ip", "link", "set", link, "up").ok()
