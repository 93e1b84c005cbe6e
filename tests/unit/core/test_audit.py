"""The audit of what is held for connections that do not live."""

import asyncio

from nsmesh.core.audit import orphans
from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain, running_chains
from nsmesh.core.virtual import run
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, NetworkServiceRequest


class Forgetful(Element):
    """Keeps the id of each connection, also after its end."""

    def __init__(self):
        self.kept = []

    def keeps(self):
        return self.kept

    async def request(self, call, request, next):
        self.kept.append(request.connection.id)
        await asyncio.sleep(1)
        return await next.request(call, request)


def test_what_is_held_for_a_connection_that_ended_is_found_and_what_lives_is_not():
    """An orphan is told by chain, element and id; nothing is said during the Request and the life."""

    async def main():
        made = chain(UpdatePath("x"), Begin(), Forgetful(), name="role x")
        async with made.running():
            assert made in running_chains()
            request = NetworkServiceRequest(connection=Connection(id="c-0"))
            task = asyncio.ensure_future(made.request(Call(), request))
            await asyncio.sleep(0.5)
            assert orphans() == []
            answer = await task
            assert orphans() == []
            await made.close(Call(), answer)
            (found,) = orphans()
            assert (found.chain, found.element, found.connection) == ("role x", "Forgetful", "c-0")
            assert str(found) == "role x: Forgetful holds something for connection c-0, which is gone"
        assert made not in running_chains()

    run(main())


def test_a_chain_without_a_begin_is_left_alone():
    """Nothing can be said of a chain that does not count lives."""

    async def main():
        element = Forgetful()
        element.kept.append("c-0")
        async with chain(element, name="bare").running():
            assert orphans() == []

    run(main())
