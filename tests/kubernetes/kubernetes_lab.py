"""The API server of the tests: where it is, and kubectl against it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent / "lab"
PROJECT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
LAB = Path(os.environ.get("NSMESH_LAB") or CACHE / "nsmesh-lab")
API_PROGRAMS = ("etcd", "kube-apiserver", "kubectl")


@dataclass(frozen=True)
class ApiServer:
    """A running etcd and kube-apiserver; ``folder`` holds keys, logs and pids."""

    folder: Path

    @property
    def kubeconfig(self) -> Path:
        """An administrator's."""
        return self.folder / "admin.kubeconfig"

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl as the administrator; returns its output, with its complaints where not ``check``."""
        done = subprocess.run(
            [LAB / "bin/kubectl", f"--kubeconfig={self.kubeconfig}", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0 or not check, f"kubectl {arguments}: {done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def pid(self, name: str) -> int:
        """Return the pid of ``etcd`` or ``kube-apiserver``."""
        return int((self.folder / "pid" / name).read_text().split()[0])

    def command(self, name: str) -> list[str]:
        """Return the command that started ``etcd`` or ``kube-apiserver``."""
        words = Path(f"/proc/{self.pid(name)}/cmdline").read_bytes().decode()
        return words.rstrip("\0").split("\0")

    def etcd(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask etcd itself, by the JSON form of its API; ``verb`` as in ``kv/range``."""
        words = self.command("etcd")
        url = f"{words[words.index('--listen-client-urls') + 1]}/v3/{verb}"
        request = urllib.request.Request(url, json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def write(self, objects: dict[str, dict[str, Any]]) -> None:
        """Put objects into etcd, past the API server; by their key below ``/registry/``."""
        puts = [
            {"requestPut": {"key": _coded(f"/registry/{key}"), "value": _coded(json.dumps(one))}}
            for key, one in objects.items()
        ]
        for first in range(0, len(puts), 100):
            self.etcd("kv/txn", {"success": puts[first : first + 100]})

    def compact(self) -> None:
        """Let etcd forget everything but the present."""
        revision = self.etcd("kv/range", {"key": _coded("/none")})["header"]["revision"]
        self.etcd("kv/compaction", {"revision": revision, "physical": True})

    def stop_api(self) -> list[str]:
        """Kill the API server, and return the command that started it."""
        pid, command = self.pid("kube-apiserver"), self.command("kube-apiserver")
        os.kill(pid, signal.SIGKILL)
        until("the API server is gone", lambda: not _alive(pid))
        return command

    def start_api(self, command: list[str]) -> None:
        """Start it again, and wait until it is ready."""
        with (self.folder / "log/kube-apiserver.log").open("a") as log:
            program = [LAB / "bin" / command[0], *command[1:]]
            server = subprocess.Popen(program, stdout=log, stderr=log, start_new_session=True)
        born = Path(f"/proc/{server.pid}/stat").read_text().rsplit(") ", 1)[1].split()[19]
        (self.folder / "pid/kube-apiserver").write_text(f"{server.pid} {born}\n")
        until("it is ready", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok")


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _alive(pid: int) -> bool:
    """Say whether a thread is left: a killed process may be a zombie while others of it hold its sockets."""
    try:
        stats = [stat.read_text() for stat in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:
        return Path(f"/proc/{pid}").exists()
    return any(stat.rsplit(") ", 1)[1][0] not in "ZX" for stat in stats)


def until(what: str, probe: Callable[[], Any], limit: float = 30) -> Any:
    """Return what ``probe`` gives once it is true; fails after ``limit`` seconds."""
    end = time.monotonic() + limit
    while not (found := probe()):
        assert time.monotonic() < end, f"not within {limit:.0f} s: {what}"
        time.sleep(0.05)
    return found
