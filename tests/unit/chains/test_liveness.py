"""Several looks at one wire: the first sign of life counts, and the others are not waited for."""

import asyncio

import pytest

from nsmesh.chains import liveness
from nsmesh.chains.liveness import any_of
from nsmesh.core.errors import NotFound
from nsmesh.core.virtual import run
from nsmesh.model.messages import Connection, Mechanism


def looking(seconds, outcome, ended):
    async def look(connection):
        try:
            await asyncio.sleep(seconds)
        finally:
            ended.append(seconds)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return look


@pytest.mark.parametrize(
    ("outcomes", "answer", "took"),
    [
        (((0.01, True), (1, False)), True, 0.01),
        (((1, False), (0.01, True)), True, 0.01),
        (((0.01, False), (1, True)), True, 1),
        (((0.01, False), (1, False)), False, 1),
        (((0.01, NotFound("no such namespace")), (1, True)), True, 1),
    ],
)
def test_the_first_sign_of_life_counts(outcomes, answer, took):
    """It is true as soon as one is content, false when all have looked, and no look goes on afterwards."""

    async def main():
        ended, begun = [], asyncio.get_running_loop().time()
        look = any_of(*(looking(seconds, outcome, ended) for seconds, outcome in outcomes))
        assert await look(Connection()) is answer
        assert asyncio.get_running_loop().time() - begun == pytest.approx(took)
        assert len(ended) == len(outcomes)
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_an_error_is_told_where_nobody_sees_life():
    """What one look failed with is raised when the other finds nothing, and not before."""

    async def main():
        look = any_of(looking(0.01, NotFound("no such namespace"), []), looking(1, outcome=False, ended=[]))
        begun = asyncio.get_running_loop().time()
        with pytest.raises(NotFound, match="no such namespace"):
            await look(Connection())
        assert asyncio.get_running_loop().time() - begun == pytest.approx(1)

    run(main())


@pytest.mark.parametrize(
    ("payload", "passing", "alive"),
    [
        ("IP", {True}, True),
        ("IP", {False}, True),
        ("IP", set(), False),
        ("ETHERNET", {True}, True),
        ("ETHERNET", {False}, False),
    ],
)
def test_a_wire_of_payload_ip_is_asked_in_both_ways(monkeypatch, payload, passing, alive):
    """A firewall lets no echo pass, some wires no ARP: either is a sign of life."""

    async def answers(namespace, interface, source, target, seconds, *, frames):
        assert (namespace, interface, source, target) == ("/n", "nsm-1", "10.0.0.1", "10.0.0.2")
        return frames in passing

    monkeypatch.setattr(liveness.probe, "answers", answers)
    connection = Connection(payload=payload, mechanism=Mechanism(type="KERNEL", parameters={"name": "nsm-1"}))
    connection.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    connection.context.ip_context.dst_ip_addrs.append("10.0.0.2/32")
    assert run(liveness.Liveness(lambda: "/n")(connection)) is alive
