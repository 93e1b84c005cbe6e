"""When answers go out: together at the end of a turn of the loop, or in the course of a long one."""

import asyncio
import math
import time

import pytest
from rpc_helpers import pair

from nsmesh import rpc
from nsmesh.rpc.server_connection import ServerConnection

SLOW = "/test.Echo/Slow"
CALLS = 6


async def slow(_call, message):
    """Answer after work that keeps the loop for a while."""
    time.sleep(0.002)  # noqa: ASYNC251 - it stands for work
    return message


@pytest.mark.parametrize(("together", "writes"), [(math.inf, 1), (0.001, CALLS - 1)])
def test_answers_of_a_long_turn_wait_no_longer_than_they_may(engine, together, writes, monkeypatch):
    """Six answers of one turn go out in one write; where each takes longer than they may wait, in five."""

    async def main():
        written = []
        async with pair(engine, together=together, extra={SLOW: rpc.Unary(slow)}) as (_, _, client):
            await client.unary(SLOW, b"the first one of a connection")
            pour = ServerConnection._pour
            monkeypatch.setattr(ServerConnection, "_pour", lambda self: written.append(1) or pour(self))
            received = ServerConnection.received
            asked = [0]

            def count(self, data):
                asked[0] += 1
                received(self, data)
                written.clear()  # what it wrote was no answer

            monkeypatch.setattr(ServerConnection, "received", count)
            answers = await asyncio.gather(*(client.unary(SLOW, b"%d" % one) for one in range(CALLS)))
            assert [answer.message for answer in answers] == [b"%d" % one for one in range(CALLS)]
            assert asked == [1]
            # The last flush of a turn is one more, which may have nothing to write.
            assert writes <= len(written) <= writes + 1

    asyncio.run(main())
