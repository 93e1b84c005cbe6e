"""What changes of a wire that stands is changed in the kernel without a gap, and nothing else is."""

import asyncio
import contextlib
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.datapath.base import Neighbour, Route
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.model.wire import PolicyRule

pytestmark = pytest.mark.root

COMMON, OLD, NEW = "10.50.0.0/16", "10.60.0.0/16", "10.70.0.0/16"
MARK = "10.99.99.0/24"


@contextlib.contextmanager
def watched(space):
    """Have ``ip monitor`` run; yield what returns its lines up to now, in the kernel's order."""
    name = Path(space).name
    argv = ["ip", "-n", name, "-o", "monitor", "route", "rule", "neigh", "link", "address"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as monitor:

        def lines():
            assert monitor.stdout is not None
            subprocess.run(["ip", "-n", name, "route", "add", "blackhole", MARK], check=True)
            found = []
            for line in monitor.stdout:
                if MARK in line:
                    return found
                found.append(" ".join(line.split()))
            raise AssertionError(found)

        try:
            limit = time.monotonic() + 10
            while not Path(f"/proc/{monitor.pid}/net/netlink").exists() or not listens(monitor.pid):
                assert time.monotonic() < limit
                time.sleep(0.01)
            yield lines
        finally:
            monitor.kill()


def listens(pid):
    """Whether a process hears of routes: it has a route socket with groups."""
    table = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
    return any(row.split()[2] == str(pid) and int(row.split()[3], 16) for row in table)


def wire(a, b, *others):
    """Return a wire that is led to by routes, a rule and neighbours, some of which others do not have."""
    made = lab.simple(a, b)
    far = "10.0.1.2"
    routes = (*made.a.routes, *(Route(prefix, far) for prefix in others))
    rule = PolicyRule(source="10.0.1.1/32", routes=tuple(Route(prefix, far) for prefix in others))
    neighbours = tuple(
        Neighbour(f"10.0.1.{number}", f"02:00:00:00:00:0{number}") for number in range(3, 4 + len(others))
    )
    return replace(made, a=replace(made.a, routes=routes, rules=(rule,), neighbours=neighbours))


def test_what_both_have_in_common_never_goes():
    """Interface, addresses, common routes and the rule are there all the time; what is new comes first."""

    async def main(a, b):
        datapath = LinuxDatapath()
        try:
            await datapath.apply(wire(a, b, COMMON, OLD))
            before = lab.link(a, "nsm-1")
            with watched(a) as lines:
                await datapath.apply(wire(a, b, COMMON, NEW))
                return before, lab.link(a, "nsm-1"), lines()
        finally:
            await datapath.aclose()

    with lab.spaces() as (a, b):
        before, after, seen = asyncio.run(main(a, b))
        assert (after["ifindex"], after["address"]) == (before["ifindex"], before["address"])
        gone = [line for line in seen if line.startswith("Deleted")]
        assert gone, seen
        assert all(OLD in line for line in gone), seen
        main_table = [line for line in seen if " table " not in line]
        came = next(at for at, line in enumerate(main_table) if NEW in line)
        went = next(at for at, line in enumerate(main_table) if OLD in line and line.startswith("Deleted"))
        assert came < went, seen
        assert NEW in lab.run(a, "ip", "route")
        assert OLD not in lab.run(a, "ip", "route", "show", "table", "all")
