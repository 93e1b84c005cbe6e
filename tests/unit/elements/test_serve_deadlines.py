"""Time to answer: a hop keeps a little of each Request's deadline for itself."""

import asyncio
from types import SimpleNamespace

import pytest

from nsmesh.core.call import Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.virtual import run
from nsmesh.elements import serve
from nsmesh.model import methods
from nsmesh.model.messages import Connection, NetworkServiceRequest


class Looks(Element):
    """Ends the chain, and keeps how much time each verb had, seconds."""

    def __init__(self):
        self.left = []

    def _look(self, call):
        now = asyncio.get_running_loop().time()
        self.left.append(None if call.deadline is None else call.deadline - now)

    async def request(self, call, request, next):
        self._look(call)
        return request.connection

    async def close(self, call, connection, next):
        self._look(call)


@pytest.mark.parametrize(
    ("given", "left"), [(15.0, 14.5), (60.0, 59.5), (5.0, 4.8), (0.1, 0.096), (0.0, 0.0), (None, None)]
)
def test_the_next_hop_has_less_time_than_we(given, left):
    """So who is silent behind us is named before the caller gives up; a Close has all the time."""

    async def main():
        looks = Looks()
        served = serve.connections(chain(looks))
        deadline = None if given is None else asyncio.get_running_loop().time() + given
        call = SimpleNamespace(deadline=deadline, peer=Peer(), metadata=(), reply={}, passing=None)
        asked = NetworkServiceRequest(connection=Connection(id="a"))
        await served[methods.REQUEST].handler(call, asked.SerializeToString())
        await served[methods.CLOSE].handler(call, asked.connection.SerializeToString())
        assert looks.left == [pytest.approx(left), pytest.approx(given)]

    run(main())
