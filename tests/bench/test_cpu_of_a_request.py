"""What a Request costs in processor time does not creep up, and connections leave no memory behind.

Wall time says little on a shared machine, and processor time differs from machine to machine: so a Request is
compared with a piece of plain Python that is measured in turn with it, in the same process.
"""

import asyncio
import gc
import sys
import tempfile
import time
from pathlib import Path

import pytest
import structlog
from whole_mesh import driven

from nsmesh.core import logging

ROUNDS = 8
COUNT = 32
AT_ONCE = 8
MOST = 11.0
"""Times as much as :func:`plain_python` that a Request with its Close may take.

It was 6.5 when this was written, and up to 8.7 with four programs for each core. Whoever adds something that
every Request needs may raise it, and says in docs/decisions/0030-cost-of-a-request.md what for.
"""

LEFT = 15.0
"""Objects that one connection may leave: some names that were given out are remembered, 4,096 at most.

What a role holds for a connection that lives are hundreds.
"""

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def logging_as_in_a_role():
    """Drop what is below the level, as every role does, and let others log as they did."""
    before = structlog.get_config()
    logging.configure(role="test", level="WARN")
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


class Piece:
    """Something small that is made, changed and looked at."""

    __slots__ = ("name", "parts")

    def __init__(self, name):
        self.name = name
        self.parts = {}

    def put(self, key, value):
        self.parts[key] = value
        return self

    def text(self):
        return ",".join(f"{key}={value}" for key, value in self.parts.items())


def plain_python():
    """Do what programs do: objects, methods, dicts, strings. About a millisecond."""
    kept = [Piece(f"piece {number}").put("number", number).put("twice", number * 2) for number in range(400)]
    return sum(len(piece.text()) + len(piece.name) for piece in kept)


def cost_of(work, times):
    """Return the processor time of one call of ``work``, seconds."""
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


async def measured(folder):
    """Return the least processor time of a Request with its Close, and of plain Python, in turn."""
    requests, plain = [], []
    async with driven(folder) as driver:
        for number in range(ROUNDS):
            first = 1 + number * COUNT
            cost = [await driver.do(verb, first, first + COUNT, AT_ONCE) for verb in ("request", "close")]
            requests.append(sum(one["cpu"] for one in cost) / COUNT)
            plain.append(cost_of(plain_python, 20))
    return min(requests[1:]), min(plain[1:])


async def blocks_by_round(folder):
    """Return how many objects Python has after each round of Requests and Closes."""
    blocks = []
    async with driven(folder) as driver:
        for number in range(ROUNDS):
            first = 1 + number * COUNT
            for verb in ("request", "close"):
                await driver.do(verb, first, first + COUNT, AT_ONCE)
            await asyncio.sleep(0.1)
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    return blocks


def test_a_request_costs_so_much_plain_python():
    """Through all roles, over TLS, with every policy and no kernel: the quietest round keeps the bound."""
    with tempfile.TemporaryDirectory(prefix="cpu-") as name:
        gc.collect()
        request, plain = asyncio.run(measured(Path(name)))
    said = f"a Request with its Close takes {request * 1e3:.2f} ms, plain Python {plain * 1e3:.2f} ms"
    assert request / plain < MOST, f"{said}: {request / plain:.2f} times as much, and {MOST} are allowed"
    sys.stdout.write(f"{said}: {request / plain:.2f}")  # shown by -s, and where it fails


def test_rounds_of_connections_leave_nothing():
    """After each round no role has more objects than after the one before, names of interfaces apart."""
    with tempfile.TemporaryDirectory(prefix="blocks-") as name:
        blocks = asyncio.run(blocks_by_round(Path(name)))
    grown = (blocks[-1] - blocks[2]) / (COUNT * (ROUNDS - 3))
    assert grown < LEFT, f"each connection leaves {grown:.1f} objects: {blocks}"
