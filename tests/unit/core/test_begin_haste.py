"""Begin: the undo of a Request that came to no end in time does not keep its error from the caller."""

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import TimedOut, Unavailable
from nsmesh.core.life import BUDGET, HASTE
from nsmesh.core.virtual import run
from nsmesh.model.messages import Connection, NetworkServiceRequest


class Silent(Element):
    """A next hop that fails a Request with ``error``, and answers a Close only when its time is over."""

    def __init__(self, error):
        self.error = error
        self.closed = 0

    async def request(self, call, request, next):
        raise self.error

    async def close(self, call, connection, next):
        self.closed += 1
        await asyncio.sleep(call.remaining())
        raise TimedOut("the next hop is silent")


@pytest.mark.parametrize(("error", "waits"), [(TimedOut("late"), HASTE), (Unavailable("away"), BUDGET)])
def test_an_undo_has_little_time_where_there_is_none_left(error, waits):
    """The Close is sent in any case; who asked hears of the failure, and not of the Close's."""

    async def main():
        silent = Silent(error)
        handler = chain(Begin(), silent)
        async with handler.running():
            begun = asyncio.get_running_loop().time()
            with pytest.raises(type(error), match=str(error)):
                await handler.request(Call(), NetworkServiceRequest(connection=Connection(id="a")))
            assert asyncio.get_running_loop().time() - begun == pytest.approx(waits, abs=0.01)
        assert silent.closed == 1

    run(main())
