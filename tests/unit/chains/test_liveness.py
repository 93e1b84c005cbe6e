"""Several looks at one wire: the first sign of life counts, and the others are not waited for."""

import asyncio

import pytest

from nsmesh.chains.liveness import any_of
from nsmesh.core.errors import NotFound
from nsmesh.core.virtual import run
from nsmesh.model.messages import Connection


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
