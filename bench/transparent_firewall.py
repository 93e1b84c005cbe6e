"""How fast a packet passes a transparent firewall: our table, a bare veth and the other ways to build it.

Run as root: python bench/transparent_firewall.py [ROUNDS]. Makes its own namespaces; takes about a minute a
round. Prints the median of the rounds for each way: TCP throughput of one stream (Gbit/s), 64-byte UDP
packets (kpps received), round trip of ping (us).
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import time

from nsmesh.endpoints.firewall_table import program
from nsmesh.endpoints.rules import parse_ruleset

PREFIX = f"bench{os.getpid()}"
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


def run(*argv: str, space: str = "", given: str = "") -> str:
    prefix = ["ip", "netns", "exec", space] if space else []
    return subprocess.run(
        [*prefix, *argv], check=True, capture_output=True, text=True, input=given or None
    ).stdout


def build(way: str) -> None:
    for space in (CLIENT, FIREWALL, SERVICE):
        run("ip", "netns", "add", space)
    if way == "veth":
        run(*f"ip link add eth netns {CLIENT} type veth peer name eth netns {SERVICE}".split())
    else:
        run(*f"ip link add in netns {FIREWALL} type veth peer name eth netns {CLIENT}".split())
        run(*f"ip link add out netns {FIREWALL} type veth peer name eth netns {SERVICE}".split())
        run("ip", "link", "set", "in", "up", space=FIREWALL)
        run("ip", "link", "set", "out", "up", space=FIREWALL)
    for space, number in ((CLIENT, 1), (SERVICE, 2)):
        run("ip", "addr", "add", f"10.0.0.{number}/24", "dev", "eth", space=space)
        run("ip", "link", "set", "eth", "up", space=space)
    WAYS[way]()


def table(rules: list[dict[str, object]]) -> None:
    text = program("bench", "in", "out", parse_ruleset(rules), rewire=True)
    run("nft", "-f", "-", space=FIREWALL, given=text)


def mirred() -> None:
    for a, b in (("in", "out"), ("out", "in")):
        run("tc", "qdisc", "add", "dev", a, "clsact", space=FIREWALL)
        run(
            *f"tc filter add dev {a} ingress u32 match u32 0 0 action mirred egress redirect dev {b}".split(),
            space=FIREWALL,
        )


def bridge(*, filtered: bool) -> None:
    run("ip", "link", "add", "name", "bridge0", "type", "bridge", space=FIREWALL)
    for name in ("in", "out"):
        run("ip", "link", "set", name, "master", "bridge0", space=FIREWALL)
    run("ip", "link", "set", "bridge0", "up", space=FIREWALL)
    if filtered:
        run("sysctl", "-w", "net.bridge.bridge-nf-call-iptables=1", space=FIREWALL)
        run("nft", "-f", "-", space=FIREWALL, given=BRIDGE)


WAYS = {
    "veth": lambda: None,
    "fwd, no rules": lambda: run("nft", "-f", "-", space=FIREWALL, given=PLAIN),
    "fwd, our table": lambda: table(ALLOW),
    "fwd, 100 rules": lambda: table(OTHERS + ALLOW),
    "tc mirred": mirred,
    "bridge": lambda: bridge(filtered=False),
    "bridge + conntrack": lambda: bridge(filtered=True),
}


def iperf(*options: str) -> dict[str, dict[str, float]]:
    server = subprocess.Popen(
        ["ip", "netns", "exec", SERVICE, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    time.sleep(0.4)
    try:
        out = run("iperf3", "-J", "-c", "10.0.0.2", "-t", "3", *options, space=CLIENT)
        return json.loads(out)["end"]
    finally:
        server.kill()
        server.wait()


def measure() -> tuple[float, float, float]:
    run("ping", "-c", "2", "-i", "0.1", "10.0.0.2", space=CLIENT)
    tcp = iperf()["sum_received"]["bits_per_second"] / 1e9
    udp = iperf("-u", "-b", "0", "-l", "64")["sum"]
    received = udp["packets"] * (1 - udp["lost_percent"] / 100) / udp["seconds"] / 1e3
    trips = run("ping", "-q", "-c", "1000", "-i", "0.002", "10.0.0.2", space=CLIENT)
    return tcp, received, float(re.search(r"= [\d.]+/([\d.]+)/", trips)[1]) * 1000


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, results in found.items():
            try:
                build(way)
                results.append(measure())
            finally:
                for space in (CLIENT, FIREWALL, SERVICE):
                    subprocess.run(["ip", "netns", "del", space], check=False)
    print(f"{'way':20} {'Gbit/s':>8} {'kpps':>8} {'us':>8}")
    for way, results in found.items():
        tcp, udp, trip = (statistics.median(column) for column in zip(*results, strict=True))
        print(f"{way:20} {tcp:8.1f} {udp:8.0f} {trip:8.1f}")


if __name__ == "__main__":
    main()
