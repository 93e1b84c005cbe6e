"""What this host lacks, found out by trying it, before a user runs into it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import MeshError
from nsmesh.datapath import netns
from nsmesh.standalone.paths import MeshPaths

FINE, LIMITED, MISSING = "ok", "limited", "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``needed_for`` says what does not work without it."""

    what: str
    state: str
    detail: str
    remedy: str = ""
    needed_for: str = ""


def _run(*argv: str, text: str | None = None) -> tuple[bool, str]:
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return done.returncode == 0, said[0] if said else ""


def _program(name: str, package: str, needed_for: str) -> Finding:
    path = shutil.which(name)
    if path:
        return Finding(name, FINE, path, needed_for=needed_for)
    return Finding(name, MISSING, "not found in PATH", f"apt-get install {package}", needed_for)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("rights", FINE, "root")
    return Finding("rights", MISSING, f"uid {os.geteuid()}", "run as root (sudo nsm ...)", "everything")


def _python() -> Finding:
    return Finding("python", FINE, sys.version.split()[0])


def _folders(paths: MeshPaths) -> Finding:
    for folder in (paths.run, paths.state):
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not os.access(there, os.W_OK):
            return Finding(
                "folders", MISSING, f"{there} cannot be written", "use --run-dir, --state-dir", "nsm up"
            )
        free = shutil.disk_usage(there).free >> 20
        if free < 50:
            return Finding("folders", LIMITED, f"{free} MiB free under {there}", "make room", "the registry")
    return Finding("folders", FINE, f"{paths.run}, {paths.state}")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1024:
        return Finding("open files", LIMITED, f"limit {soft} (hard {hard})", "ulimit -n 65536", "many wires")
    return Finding("open files", FINE, f"limit {soft} (hard {hard})")


def _in_namespace(name: str, needed_for: str, remedy: str, probe: Callable[[], tuple[bool, str]]) -> Finding:
    space = f"nsm-doctor-{uuid.uuid4().hex[:8]}"
    try:
        with netns.temporary(space) as (path,):
            fine, detail = netns.call_in(path, probe)
    except MeshError as error:
        return Finding(name, MISSING, error.what, error.remedy, needed_for)
    return Finding(name, FINE if fine else MISSING, detail or "works", "" if fine else remedy, needed_for)


def _veth() -> tuple[bool, str]:
    return _run("ip", "link", "add", "nsm-a", "type", "veth", "peer", "name", "nsm-b")


def _tun() -> tuple[bool, str]:
    return _run("ip", "tuntap", "add", "dev", "nsm-t", "mode", "tun")


def _nft() -> tuple[bool, str]:
    rules = (
        "table netdev nsm { chain a { type filter hook ingress device lo priority 0; "
        "tcp dport 80 counter reject with tcp reset\n}\n}\n"
    )
    return _run("nft", "-f", "-", text=rules)


def _nat() -> tuple[bool, str]:
    return _run(
        "nft",
        "-f",
        "-",
        text="table ip nsm { chain p { type nat hook postrouting priority 100; masquerade\n}\n}\n",
    )


def _wireguard() -> tuple[bool, str]:
    fine, _ = _run("ip", "link", "add", "nsm-w", "type", "wireguard")
    if fine:
        return True, "in the kernel"
    program = shutil.which("wireguard-go")
    return bool(program), program or "neither in the kernel nor as wireguard-go"


def examine(paths: MeshPaths) -> list[Finding]:
    """Look at everything; nothing of the host is changed and nothing is left behind."""
    findings = [_root(), _python(), _folders(paths), _files()]
    findings += [
        _program("ip", "iproute2", "nsm doctor, the examples"),
        _program("ping", "iputils-ping", "the demo"),
        _program("nft", "nftables", "firewall, vpn-gateway"),
    ]
    if os.geteuid() == 0:
        module = "load the kernel module: modprobe {}"
        findings += [
            _in_namespace("veth", "every wire", module.format("veth"), _veth),
            _in_namespace("nftables netdev", "firewall", "a kernel of 5.11 or later is needed", _nft),
            _in_namespace("nftables nat", "vpn-gateway", module.format("nft_masq"), _nat),
            _in_namespace("tun", "wireguard-go", module.format("tun"), _tun),
            _in_namespace("wireguard", "vpn-gateway", "apt-get install wireguard-go", _wireguard),
        ]
    limit = Path("/proc/sys/user/max_net_namespaces")
    if limit.exists() and int(limit.read_text()) < 64:
        findings.append(
            Finding(
                "namespaces",
                LIMITED,
                f"at most {limit.read_text().strip()}",
                "sysctl -w user.max_net_namespaces=1024",
                "many workloads",
            )
        )
    return findings
