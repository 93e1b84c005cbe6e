"""For tests of wires by segment routing: two nodes with an underlay of IPv6."""

from __future__ import annotations

import itertools
import re
import select
import subprocess
from contextlib import contextmanager
from pathlib import Path

import datapath_lab as lab
import pytest
import tunnel_lab
import vxlan_lab

from nsmesh.datapath.abilities import lacks

OURS = "-6 route show proto 110"
MARKS = [
    pytest.mark.root,
    pytest.mark.skipif(bool(lacks("SRV6")), reason=f"SRV6: {lacks('SRV6')}"),
]
ROUTED = ("2001:db8:a::1", "2001:db8:b::1")
PREFIXES = ("2001:db8:5e:a::/64", "2001:db8:5e:b::/64")
"""Addresses of two nodes with a router between them, and the prefixes of identifiers that it leads there."""


def run(main):
    return vxlan_lab.run(main, family=6)


def ip(space, command):
    return lab.run(space, "ip", *command.split())


def wires(found, **more):
    return tunnel_lab.wires(found, "SRV6", family=6, **more)


def pings(path, address, count=3):
    """Say whether one of some echoes comes back: a first one may wait for a neighbour of the underlay."""
    argv = ["ip", "netns", "exec", Path(path).name, "ping", "-i0.2", "-W1", f"-c{count}", address]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def snapshot(node):
    return (
        {name: lab.link(node, name)["ifindex"] for name in lab.names(node)},
        ip(node, OURS),
        lab.run(node, "tc", "filter", "show", "dev", next(iter(lab.names(node) - {"under"})), "ingress"),
    )


@contextmanager
def changes(node):
    """Hear of links and routes that change in a namespace; what is yielded returns what was said."""
    argv = ["ip", "-n", Path(node).name, "monitor", "link", "route", "rule"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        said = []

        def heard():
            if not said:
                process.terminate()
                said.append(process.communicate(timeout=5)[0])
            return said[0]

        try:
            for number in itertools.count():  # it hears from one of them on
                mark = f"mark{number}"
                ip(node, f"link add {mark} type bridge")
                ip(node, f"link del {mark}")
                if select.select([process.stdout], [], [], 0.1)[0]:
                    break
            while not re.search(rf"^Deleted .*\b{mark}\b", line := process.stdout.readline()):
                assert line, "ip monitor has ended"
            yield heard
        finally:
            heard()


@contextmanager
def routed():
    """Yield two nodes, each on a link of its own to a router, and their pods."""
    with lab.spaces(5) as paths:
        router = paths[4]
        ip(router, "link set lo up")
        lab.run(router, "sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
        for node, name, own, prefix in zip(paths[:2], "ab", ROUTED, PREFIXES, strict=True):
            there = ["name", f"to-{name}", "netns", Path(router).name]
            subprocess.run(
                ["ip", "link", "add", "under", "netns", Path(node).name, "type", "veth", "peer", *there],
                check=True,
            )
            for place, dev, address in ((node, "under", own), (router, f"to-{name}", f"2001:db8:{name}::ff")):
                ip(place, f"address add {address}/64 dev {dev} nodad")
                ip(place, f"link set {dev} up")
            ip(router, f"address add 2001:db8:{name}::fe/64 dev to-{name} nodad")
            ip(node, f"route add default via 2001:db8:{name}::ff")
            ip(router, f"route add {prefix} via {own}")
        yield vxlan_lab.Nodes(*paths[:4])
