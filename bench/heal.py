"""How long no packet passes when something dies: an endpoint, a node, an interface, a thousand wires.

Run as root: python bench/run.py heal. One client's wire carries an echo each 2 ms; what is told is the
longest silence, from the fault to the first packet through what is new.
"""

from __future__ import annotations

import os
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common import spaces
from healing_lab import Lab, Stream, ip, until
from processes import Process
from report import Report, row

from nsmesh.datapath import netns

NAME = "heal"
SETTLE = 0.4
"""Seconds after a fault in which the silence must have begun."""
LOOK = 0.1
"""Seconds between two looks at how many wires are back: to list a thousand interfaces holds the kernel up."""
CLIENTS = 10
"""Clients that share a thousand wires."""


def run(*, short: bool, profiles: Path | None = None) -> Report:  # noqa: ARG001 - the face of a benchmark
    """Measure one fault after another."""
    rounds = 3 if short else 25
    report = Report()
    with ExitStack() as stack:
        for what, silences in _one_node(stack, rounds).items():
            report.rows.append(row("heal", what, silences))
    with ExitStack() as stack:
        report.rows.append(row("heal", "far node gone", _far_node(stack, rounds)))
    for number in (20,) if short else (100, 100, 100):
        with ExitStack() as stack:
            took = _many_far(stack, number)
            report.rows.append(row("heal", f"{number} wires, their far node is gone, all back", [took]))
    for number in (100,) if short else (1000, 1000, 1000):
        with ExitStack() as stack:
            took, cpu = _many(stack, number)
            report.rows.append(row("heal", f"{number} wires, one endpoint dies, all back", [took], [cpu]))
    return report


@contextmanager
def _pod() -> Iterator[str]:
    """Yield a namespace that may be deleted before the end."""
    name = f"bench-{os.getpid()}-{uuid.uuid4().hex[:6]}"
    netns.create(name)
    try:
        yield f"/run/netns/{name}"
    finally:
        if Path(f"/run/netns/{name}").exists():
            netns.delete(name)


def _die(process: Process, pod: str) -> None:
    """End an endpoint with its namespace, as a pod that is killed."""
    process.popen.send_signal(signal.SIGKILL)
    process.popen.wait()
    netns.delete(Path(pod).name)


def _one_node(stack: ExitStack, rounds: int) -> dict[str, list[float]]:
    lab = Lab(stack, 1)
    [near] = stack.enter_context(spaces(1))
    pod = stack.enter_context(_pod())
    serving = lab.endpoint("nse0", 1, pod), pod
    lab.client(near)
    stream = Stream(near)
    stream.start()
    stack.callback(stream.end)
    found: dict[str, list[float]] = {"interface set down": [], "interface deleted": [], "endpoint dies": []}
    pause = 0.6
    for _ in range(rounds):
        stream.passes()
        time.sleep(pause)
        found["interface set down"].append(
            stream.after(lambda: ip(near, "link", "set", "nsm-1", "down"), SETTLE)
        )
        time.sleep(pause)
        found["interface deleted"].append(stream.after(lambda: ip(near, "link", "del", "nsm-1"), SETTLE))
    for number in range(1, rounds + 1):
        pod = stack.enter_context(_pod())
        another = lab.endpoint(f"nse{number}", 1, pod), pod
        time.sleep(0.3)
        stream.passes()
        found["endpoint dies"].append(stream.after(lambda: _die(*serving), 1.5))  # noqa: B023 - done at once
        until(lambda: _interfaces(another[1]) == 1, "that the wire is at the other endpoint")  # noqa: B023 - as well
        serving = another
    return found


def _far_node(stack: ExitStack, rounds: int) -> list[float]:
    """Two nodes take turns in being cut off; the client is on a third."""
    lab = Lab(stack, 3)
    [near] = stack.enter_context(spaces(1))
    pods = [stack.enter_context(_pod()) for _ in range(rounds + 1)]
    serving = lab.endpoint("nse0", 2, pods[0])
    lab.client(near)
    stream = Stream(near)
    stream.start()
    stack.callback(stream.end)
    found: list[float] = []
    for number in range(1, rounds + 1):
        node = lab.nodes[2 - number % 2]
        another = lab.endpoint(f"nse{number}", 2 + number % 2, pods[number])
        time.sleep(0.5)
        stream.passes()
        found.append(stream.after(lambda: ip(node, "link", "set", "under", "down"), SETTLE))  # noqa: B023 - done at once
        ip(node, "link", "set", "under", "up")
        time.sleep(2)
        serving.stop()  # it unregisters: a node that died in an earlier round leaves no trace
        serving = another
    return found


def _many(stack: ExitStack, count: int) -> tuple[float, float]:
    """One endpoint with all wires dies beside two others.

    Return the seconds until all stand again, and those of processor time that all roles take meanwhile.

    Raises SystemExit where the two have another number of wires than there are, some seconds later: one that
    was refused and never asked for again, or one that was made and left.
    """
    lab = Lab(stack, 1)
    near, *others = stack.enter_context(spaces(3))
    pod = stack.enter_context(_pod())
    first = lab.endpoint("nse0", 1, pod)
    urls = [f"kernel://bench/w{number}" for number in range(count)]
    shares = [",".join(urls[number::CLIENTS]) for number in range(CLIENTS)]
    lab.clients(near, shares, NSM_LIVENESS_CHECK_INTERVAL="1h")
    for number, other in enumerate(others, start=1):
        lab.endpoint(f"nse{number}", 1, other)
    time.sleep(1)
    busy, began = lab.cpu(), time.monotonic()
    _die(first, pod)
    until(lambda: sum(map(_interfaces, others)) >= count, "that all wires are back", 120, LOOK)
    took, spent = time.monotonic() - began, lab.cpu()
    time.sleep(SETTLE * 10)
    here, there = _interfaces(near), sum(map(_interfaces, others))
    if (here, there) != (count, count):
        raise SystemExit(f"heal: {here} wires at the clients and {there} at the endpoints, not {count}")
    return took, sum(spent[name] - busy[name] for name in spent)


def _many_far(stack: ExitStack, count: int) -> float:
    """Cut the node of all wires off, beside another with an endpoint; return the seconds until all stand."""
    lab = Lab(stack, 3)
    [near] = stack.enter_context(spaces(1))
    pods = [stack.enter_context(_pod()) for _ in range(2)]
    lab.endpoint("nse0", 2, pods[0])
    services = ",".join(f"kernel://bench/w{number}" for number in range(count))
    lab.client(near, services, NSM_LIVENESS_CHECK_INTERVAL="1h")
    lab.endpoint("nse1", 3, pods[1])
    time.sleep(1)
    began = time.monotonic()
    ip(lab.nodes[1], "link", "set", "under", "down")
    until(lambda: _interfaces(pods[1]) >= count, "that all wires are back", 120, LOOK)
    return time.monotonic() - began


def _interfaces(space: str) -> int:
    return netns.call_in(space, lambda: len(socket.if_nameindex())) - 1
