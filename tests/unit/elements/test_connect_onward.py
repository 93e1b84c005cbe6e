"""Connect: two halves of a process end together."""

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Unavailable
from nsmesh.core.probes import Count, Inject
from nsmesh.core.virtual import run
from nsmesh.elements.connect import Connect
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, NetworkServiceRequest


def test_a_close_that_fails_in_the_server_half_ends_the_client_half_all_the_same():
    """What fails between the halves does not let the one behind it go on for ever; further on is once."""

    async def main():
        behind, far = Begin(), Count()
        onward = chain(UpdatePath("x"), behind, far, name="x onward")
        failing = Inject(lambda: Unavailable("no"), "close", times=1)
        server = chain(UpdatePath("x"), Begin(), failing, Connect(onward), name="x")
        async with onward.running(), server.running():
            request = NetworkServiceRequest(connection=Connection(id="c-0"))
            answer = await server.request(Call(), request)
            assert len(behind.connections) == 1
            with pytest.raises(Unavailable):
                await server.close(Call(), answer)
            assert behind.connections == []
            assert far.seen["close"] == 1
            await server.close(Call(), answer)
            assert far.seen["close"] == 1

    run(main())
