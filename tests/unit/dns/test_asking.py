"""How long servers are asked, in virtual time; what they say is at hand."""

import asyncio

import dns.message
import dns.rcode
import pytest

from nsmesh.core import virtual
from nsmesh.dns import asking
from nsmesh.dns.asking import HURRIED, LATELY, LIMIT, STAGGER, Asker

QUERY = dns.message.make_query("web.red.example", "A").to_wire()


def reply(code):
    made = dns.message.make_response(dns.message.from_wire(QUERY))
    made.set_rcode(dns.rcode.from_text(code))
    return made.to_wire()


@pytest.fixture
def servers(monkeypatch):
    """Servers by address: seconds until they answer, and with what; ``asked`` says who was, and when."""
    known, asked = {}, []

    async def one(server, query, *, tcp):
        asked.append((server, asyncio.get_running_loop().time()))
        seconds, said = known[server]
        await asyncio.sleep(seconds)
        if isinstance(said, Exception):
            raise said
        return reply(said)

    monkeypatch.setattr(asking, "_one", one)
    known["asked"] = asked
    return known


async def timed(asker, *addresses):
    """Return the code of the answer, if there is one, and the seconds that it took."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    said = await asker.ask(addresses, QUERY, tcp=False)
    code = None if said is None else dns.rcode.to_text(dns.message.from_wire(said).rcode())
    return code, pytest.approx(loop.time() - start, abs=0.001)


def test_who_says_nothing_has_all_the_time_once_and_little_then(servers):
    """Until enough time has passed: then it has all of it again, also when it was asked meanwhile."""
    servers["a"] = (99, "NOERROR")

    async def main():
        asker = Asker()
        assert await timed(asker, "a") == (None, LIMIT)
        for _ in range(int(LATELY / HURRIED / 2)):
            assert await timed(asker, "a") == (None, HURRIED)
            await asyncio.sleep(HURRIED)
        await asyncio.sleep(HURRIED)
        assert await timed(asker, "a") == (None, LIMIT)

    virtual.run(main())


def test_a_slow_answer_is_waited_for_and_is_no_silence(servers):
    """A server that takes two seconds is used as long as it answers in time."""
    servers["a"] = (2, "NXDOMAIN")

    async def main():
        asker = Asker()
        for _ in range(3):
            assert await timed(asker, "a") == ("NXDOMAIN", 2)

    virtual.run(main())


def test_the_next_is_asked_after_a_second_and_first_from_then_on(servers):
    """The first that answers is taken, and who was silent comes last."""
    servers |= {"a": (99, "NOERROR"), "b": (0.1, "NOERROR")}

    async def main():
        asker = Asker()
        assert await timed(asker, "a", "b") == ("NOERROR", STAGGER + 0.1)
        assert await timed(asker, "a", "b") == ("NOERROR", 0.1)
        assert [server for server, _ in servers["asked"]] == ["a", "b", "b"]

    virtual.run(main())


def test_an_error_has_the_next_asked_at_once(servers):
    """Also one of the kernel. The last error of a server is told where nobody knows better."""
    servers |= {"a": (0.1, ConnectionRefusedError()), "b": (0.1, "SERVFAIL"), "c": (0.1, "NOERROR")}

    async def main():
        assert await timed(Asker(), "a", "b", "c") == ("NOERROR", pytest.approx(0.3))
        assert await timed(Asker(), "a", "b") == ("SERVFAIL", 0.2)
        assert await timed(Asker(), "a") == (None, 0.1)

    virtual.run(main())


def test_where_all_were_silent_all_are_asked_at_once(servers):
    """Whoever is back first is found within the little time that there is."""
    servers |= {"a": (99, "NOERROR"), "b": (99, "NOERROR")}

    async def main():
        asker = Asker()
        assert await timed(asker, "a", "b") == (None, LIMIT)
        servers["b"] = (0.1, "NOERROR")
        assert await timed(asker, "a", "b") == ("NOERROR", 0.1)

    virtual.run(main())


def test_nobody_to_ask_is_no_answer(servers):
    """At once."""

    async def main():
        assert await timed(Asker()) == (None, 0)

    virtual.run(main())


def test_whoever_gives_up_leaves_no_task(servers):
    """A query that is cancelled cancels what it asks."""
    servers["a"] = (99, "NOERROR")

    async def main():
        task = asyncio.ensure_future(Asker().ask(["a"], QUERY, tcp=False))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    virtual.run(main())
