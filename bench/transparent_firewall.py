"""How fast a packet passes a transparent firewall: our table, a bare veth and the other ways to build it.

Run as root: python bench/run.py firewall. Makes its own namespaces; takes about a minute a round. Shows for
each way: TCP throughput of one stream (Gbit/s), 64-byte UDP packets (kpps received), round trip of ping (us).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

from report import Details, Report

from nsmesh.endpoints.firewall_table import program
from nsmesh.endpoints.rules import parse_ruleset

NAME = "firewall"
PREFIX = f"bench-{os.getpid()}-firewall"
CLIENT, FIREWALL, SERVICE = (f"{PREFIX}-{name}" for name in ("c", "f", "s"))
ALLOW = [{"action": "allow"}]
OTHERS = [
    {"name": f"r{n}", "action": "deny", "protocol": "tcp", "ports": 20000 + n, "from": f"10.{n}.0.0/16"}
    for n in range(1, 101)
]
PLAIN = """table netdev plain {
  chain a { type filter hook ingress device "in" priority 0; fwd to "out"; }
  chain b { type filter hook ingress device "out" priority 0; fwd to "in"; }
}"""
BRIDGE = """table inet filter {
  chain forward { type filter hook forward priority 0; policy drop;
    ct state established,related counter accept
    tcp dport 5201 accept; udp dport 5201 accept; icmp type echo-request accept; }
}"""


def inside(*argv: str, space: str = "", given: str = "") -> str:
    prefix = ["ip", "netns", "exec", space] if space else []
    return subprocess.run(
        [*prefix, *argv], check=True, capture_output=True, text=True, input=given or None
    ).stdout


def build(way: str) -> None:
    for space in (CLIENT, FIREWALL, SERVICE):
        inside("ip", "netns", "add", space)
    if way == "veth":
        inside(*f"ip link add eth netns {CLIENT} type veth peer name eth netns {SERVICE}".split())
    else:
        inside(*f"ip link add in netns {FIREWALL} type veth peer name eth netns {CLIENT}".split())
        inside(*f"ip link add out netns {FIREWALL} type veth peer name eth netns {SERVICE}".split())
        inside("ip", "link", "set", "in", "up", space=FIREWALL)
        inside("ip", "link", "set", "out", "up", space=FIREWALL)
    for space, number in ((CLIENT, 1), (SERVICE, 2)):
        inside("ip", "addr", "add", f"10.0.0.{number}/24", "dev", "eth", space=space)
        inside("ip", "link", "set", "eth", "up", space=space)
    WAYS[way]()


def table(rules: list[dict[str, object]]) -> None:
    text = program("bench", "in", "out", parse_ruleset(rules), rewire=True)
    inside("nft", "-f", "-", space=FIREWALL, given=text)


def mirred() -> None:
    for a, b in (("in", "out"), ("out", "in")):
        inside("tc", "qdisc", "add", "dev", a, "clsact", space=FIREWALL)
        inside(
            *f"tc filter add dev {a} ingress u32 match u32 0 0 action mirred egress redirect dev {b}".split(),
            space=FIREWALL,
        )


def bridge(*, filtered: bool) -> None:
    inside("ip", "link", "add", "name", "bridge0", "type", "bridge", space=FIREWALL)
    for name in ("in", "out"):
        inside("ip", "link", "set", name, "master", "bridge0", space=FIREWALL)
    inside("ip", "link", "set", "bridge0", "up", space=FIREWALL)
    if filtered:
        inside("sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1", space=FIREWALL)
        inside("nft", "-f", "-", space=FIREWALL, given=BRIDGE)


WAYS = {
    "veth": lambda: None,
    "fwd, no rules": lambda: inside("nft", "-f", "-", space=FIREWALL, given=PLAIN),
    "fwd, our table": lambda: table(ALLOW),
    "fwd, 100 rules": lambda: table(OTHERS + ALLOW),
    "tc mirred": mirred,
    "bridge": lambda: bridge(filtered=False),
    "bridge + conntrack": lambda: bridge(filtered=True),
}


def iperf(seconds: int, *options: str) -> dict[str, dict[str, float]]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", SERVICE, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    time.sleep(0.4)
    try:
        out = inside("iperf3", "-J", "-c", "10.0.0.2", "-t", str(seconds), *options, space=CLIENT)
        return json.loads(out)["end"]
    finally:
        server.kill()
        server.wait()


def measure(seconds: int) -> tuple[float, float, float]:
    inside("ping", "-c", "2", "-i", "0.1", "10.0.0.2", space=CLIENT)
    tcp = iperf(seconds)["sum_received"]["bits_per_second"] / 1e9
    udp = iperf(seconds, "-u", "-b", "0", "-l", "64")["sum"]
    received = udp["packets"] * (1 - udp["lost_percent"] / 100) / udp["seconds"] / 1e3
    trips = inside("ping", "-q", "-c", str(300 * seconds), "-i", "0.002", "10.0.0.2", space=CLIENT)
    return tcp, received, float(re.search(r"= [\d.]+/([\d.]+)/", trips)[1]) * 1000


def once(way: str, seconds: int) -> tuple[float, float, float]:
    """Build one way, measure it, take it down."""
    try:
        build(way)
        return measure(seconds)
    finally:
        for space in (CLIENT, FIREWALL, SERVICE):
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure all ways in turn; the bare veth is what they are compared with."""
    missing = [program for program in ("iperf3", "ping", "ip", "nft", "tc") if shutil.which(program) is None]
    if missing:
        return Report(notes=[f"firewall: not measured, {' and '.join(missing)} missing"])
    rounds, seconds, ways = (1, 1, list(WAYS)[:3:2]) if short else (3, 3, list(WAYS))
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, results in found.items():
            results.append(once(way, seconds))
    base = [statistics.median(column) for column in zip(*found[ways[0]], strict=True)]
    rows = []
    for way, results in found.items():
        middle = [statistics.median(column) for column in zip(*results, strict=True)]
        cells = [f"{value:.1f} ({value / to:.2f})" for value, to in zip(middle, base, strict=True)]
        rows.append((way, *cells))
    head = ("transparent firewall", "TCP Gbit/s", "UDP 64 B kpps", "round trip us")
    return Report(details=[Details("packets through a firewall, and the ratio to a bare veth", head, rows)])
