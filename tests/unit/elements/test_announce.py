"""Announce: a wire that was chosen anew is announced, a first one is not."""

import asyncio

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.virtual import run
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.announce import Announce
from nsmesh.model.messages import Connection, NetworkServiceRequest, State


class Granted(Tail):
    async def request(self, call, request):
        request.connection.state = State.UP
        return request.connection

    async def close(self, call, connection):
        pass


@pytest.mark.parametrize(("state", "times"), [(State.UP, 0), (State.RESELECT_REQUESTED, 3)])
def test_what_was_chosen_anew_is_announced(state, times):
    """Three times, the first at once; and no task stays."""

    async def main():
        datapath = FakeDatapath()
        handler = chain(Begin(), Announce(datapath), end=Granted())
        async with handler.running():
            request = NetworkServiceRequest(connection=Connection(id="c", state=state))
            await handler.request(Call(), request)
            await asyncio.sleep(0.01)
            assert datapath.announced == ["c"][:times]
            await asyncio.sleep(2)
            assert datapath.announced == ["c"] * times
            assert handler.scope.tasks == 0

    run(main())
