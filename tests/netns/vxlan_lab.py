"""For tests of wires between nodes: two node namespaces joined by an underlay, a pod behind each."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import datapath_lab as lab

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort, Neighbour, Route, VxlanPort
from nsmesh.datapath.netlink import Netlink
from nsmesh.datapath.offloads import joins_received
from nsmesh.datapath.segments import SegmentDatapath

NEAR_MAC, FAR_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
UNDERLAY = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}


@dataclass(frozen=True)
class Nodes:
    """Paths of the namespaces: nodes ``a`` and ``b``, pods ``pod_a`` and ``pod_b``."""

    a: str
    b: str
    pod_a: str
    pod_b: str

    def drivers(self, **more) -> tuple[SegmentDatapath, SegmentDatapath]:
        """Return the driver of each node."""
        return SegmentDatapath(node=self.a, **more), SegmentDatapath(node=self.b, **more)


@contextmanager
def nodes(mtu: int = 1500, family: int = 4) -> Iterator[Nodes]:
    """Yield two nodes that reach each other over an underlay of that MTU, and two pods."""
    with lab.spaces(4) as paths:
        a, b = (Path(path).name for path in paths[:2])
        command = f"ip link add under netns {a} mtu {mtu} type veth peer name under netns {b} mtu {mtu}"
        subprocess.run(command.split(), check=True)
        for name, address in zip((a, b), UNDERLAY[family], strict=True):
            length = "24" if family == 4 else "64"
            nodad = [] if family == 4 else ["nodad"]
            lab.run(name, "ip", "addr", "add", f"{address}/{length}", "dev", "under", *nodad)
            lab.run(name, "ip", "link", "set", "under", "up")
        yield Nodes(*paths)


def wires(
    found: Nodes,
    *,
    vni: int = 4711,
    mtu: int = 1450,
    wire_id: str = "w1",
    number: int = 1,
    family: int = 4,
    **more,
) -> tuple[CrossConnect, CrossConnect]:
    """Return the two halves of a wire for payload IP, as the two forwarders have agreed; ``more``: ports."""
    here, there = UNDERLAY[family]
    net, net6 = f"10.0.{number}", f"fd00:{number}"
    near = KernelPort(
        found.pod_a,
        f"nsm-{number}",
        mac=NEAR_MAC,
        mtu=mtu,
        addresses=(f"{net}.1/32", f"{net6}::1/128"),
        routes=(Route(f"{net}.2/32"), Route(f"{net6}::2/128")),
        neighbours=(Neighbour(f"{net}.2", FAR_MAC), Neighbour(f"{net6}::2", FAR_MAC)),
    )
    far = KernelPort(
        found.pod_b,
        f"nse-{number}",
        mac=FAR_MAC,
        mtu=mtu,
        addresses=(f"{net}.2/32", f"{net6}::2/128"),
        routes=(Route(f"{net}.1/32"), Route(f"{net6}::1/128")),
        neighbours=(Neighbour(f"{net}.1", NEAR_MAC), Neighbour(f"{net6}::1", NEAR_MAC)),
    )
    out = VxlanPort(vni, here, there, **more)
    back = replace(out, local=there, remote=here, local_port=out.remote_port, remote_port=out.local_port)
    return CrossConnect(wire_id, near, out, "IP"), CrossConnect(f"{wire_id}-far", back, far, "IP")


def pinged(path: str, address: str, size: int = 56) -> subprocess.CompletedProcess[str]:
    """Send one echo of ``size`` bytes that may not be cut into pieces; return what ``ping`` says of it."""
    command = ["ping", "-M", "do", "-s", str(size), "-c1", "-W1", address]
    argv = ["ip", "netns", "exec", Path(path).name, *command]
    return subprocess.run(argv, check=False, capture_output=True, text=True)


def pings(path: str, address: str, size: int = 56) -> bool:
    """Say whether an echo of ``size`` bytes comes back that may not be cut into pieces."""
    return pinged(path, address, size).returncode == 0


def run(main, **more):
    """Run a coroutine function with two nodes."""
    with nodes(**more) as found:
        return asyncio.run(main(found))


async def both(found, first, second, **more):
    """Apply the halves of a wire on their nodes; return the drivers."""
    here, there = found.drivers(**more)
    assert (await there.apply(second)).outcome == "created"
    assert (await here.apply(first)).outcome == "created"
    return here, there


async def closed(*drivers):
    """Close drivers."""
    for driver in drivers:
        await driver.aclose()


def tunnel(path: str, name: str) -> dict[str, object]:
    """Return what the kernel says of a VXLAN device."""
    data: dict[str, object] = lab.link(path, name)["linkinfo"]["info_data"]
    return data


def joins(path: str, name: str) -> bool:
    """Say whether an interface joins what it receives (GRO)."""
    with netns.call_in(path, Netlink) as control:
        return joins_received(control.fileno(), name)
