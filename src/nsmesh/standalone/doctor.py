"""What this host lacks, found out by trying it, before a user runs into it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from nsmesh.core.errors import MeshError
from nsmesh.datapath import ovs_programs
from nsmesh.standalone import features
from nsmesh.standalone.paths import MeshPaths

FINE, LIMITED, MISSING = "ok", "limited", "missing"
ENOUGH_FILES, ENOUGH_SPACE, ENOUGH_NAMESPACES = 1024, 50, 64
"""Open files; MiB of the disk; network namespaces: with fewer than that, something is said."""

_NETDEV = """
table netdev nsm {
  chain a { type filter hook ingress device lo priority 0; tcp dport 80 counter drop; }
}
"""
_REJECT = _NETDEV.replace("drop", "reject with tcp reset")
_KERNEL_THAT_REJECTS = "use a kernel of 5.11 or later with NFT_REJECT_NETDEV (not Debian's for clouds)"
_NAT = """
table ip nsm {
  chain p { type nat hook postrouting priority 100; masquerade; }
}
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``needed_for`` says what does not work without it."""

    what: str
    state: str
    detail: str
    remedy: str = ""
    needed_for: str = ""


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
        if free < ENOUGH_SPACE:
            return Finding("folders", LIMITED, f"{free} MiB free under {there}", "make room", "the registry")
    return Finding("folders", FINE, f"{paths.run}, {paths.state}")


def _files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < ENOUGH_FILES:
        return Finding("open files", LIMITED, f"limit {soft} (hard {hard})", "ulimit -n 65536", "many wires")
    return Finding("open files", FINE, f"limit {soft} (hard {hard})")


def _namespaces() -> Iterator[Finding]:
    limit = Path("/proc/sys/user/max_net_namespaces")
    if limit.exists() and int(limit.read_text()) < ENOUGH_NAMESPACES:
        said = f"at most {limit.read_text().strip()}"
        remedy = "sysctl -w user.max_net_namespaces=1024"
        yield Finding("namespaces", LIMITED, said, remedy, "many workloads")


def _kernel() -> Iterator[Finding]:
    """Try each feature of the kernel; without what is not vital a mesh still runs."""
    for feature, why in features.lacking(features.FEATURES):
        if why:
            state = MISSING if feature.vital else LIMITED
            yield Finding(feature.name, state, why, feature.remedy, feature.needed_for)
        else:
            yield Finding(feature.name, FINE, "works", needed_for=feature.needed_for)


def _wireguard() -> Finding:
    """Look for WireGuard: in the kernel, with ``wg`` to set it up, or as a program."""
    name, needed_for = "wireguard", "vpn-gateway"
    if not features.in_namespace(features.wireguard):
        tool = shutil.which("wg")
        if tool:
            return Finding(name, FINE, f"in the kernel, and {tool}", needed_for=needed_for)
        said = "in the kernel, but wg, which sets it up, is not found in PATH"
        return Finding(name, MISSING, said, "apt-get install wireguard-tools", needed_for)
    program = shutil.which("wireguard-go")
    if program:
        return Finding(name, FINE, program, needed_for=needed_for)
    said = "neither in the kernel nor as wireguard-go in PATH"
    return Finding(name, MISSING, said, "apt-get install wireguard-go", needed_for)


def _switch() -> Iterator[Finding]:
    """Look for Open vSwitch and its build with DPDK: only a mesh that asks for it needs either."""
    for name, why, package, needed_for in (
        ("ovs", ovs_programs.lacks_switch(), ovs_programs.PACKAGE, "nsm up --forwarders linux,ovs"),
        ("ovs dpdk", ovs_programs.lacks_dpdk(), ovs_programs.DPDK_PACKAGE, "memif and vhost-user by ovs"),
    ):
        if why:
            yield Finding(name, LIMITED, why, f"apt-get install {package}", needed_for)
        else:
            yield Finding(name, FINE, "works", needed_for=needed_for)


def _nftables() -> Iterator[Finding]:
    """Try the kernel's half of nftables, where its program is there to try it with."""
    if not shutil.which("nft"):
        return
    for name, rules, state, needed_for, remedy in (
        ("nftables netdev", _NETDEV, MISSING, "firewall", "load the kernel module: modprobe nf_tables"),
        (
            "nftables reject",
            _REJECT,
            LIMITED,
            "answers to what a firewall denies; it drops",
            _KERNEL_THAT_REJECTS,
        ),
        ("nftables nat", _NAT, MISSING, "vpn-gateway", "load the kernel module: modprobe nft_masq"),
    ):
        why = features.in_namespace(partial(_refusal, rules))
        if why:
            yield Finding(name, state, why, remedy, needed_for)
        else:
            yield Finding(name, FINE, "works", needed_for=needed_for)


def _refusal(rules: str) -> str:
    """Return what nft says against ``rules`` in the namespace of this thread, or nothing."""
    argv = ["nft", "-f", "-"]
    try:
        done = subprocess.run(argv, input=rules, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (done.stderr or done.stdout).strip().splitlines()
    return (said[0] if said else f"exit code {done.returncode}") if done.returncode else ""


def examine(paths: MeshPaths) -> list[Finding]:
    """Look at everything; nothing of the host is changed and nothing is left behind."""
    findings = [_root(), _python(), _folders(paths), _files()]
    findings += [
        _program("ip", "iproute2", "vpn-gateway, several nodes (nsm up --nodes), the examples"),
        _program("ping", "iputils-ping", "the demo"),
        _program("nft", "nftables", "firewall, vpn-gateway"),
        *_switch(),
    ]
    if os.geteuid() == 0:
        try:
            findings += [*_kernel(), *_nftables(), _wireguard()]
        except MeshError as error:
            findings.append(Finding("namespaces", MISSING, error.what, error.remedy, "everything"))
    return [*findings, *_namespaces()]
