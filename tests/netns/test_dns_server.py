"""The DNS server of a pod, between real ones in other namespaces."""

import asyncio
import os
from contextlib import asynccontextmanager, suppress

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest
from dns_lab import CLUSTER, LOCAL, SECOND, WIRE, play

from nsmesh.core.scope import Scope
from nsmesh.dns import asking, server
from nsmesh.dns.server import LocalServer
from nsmesh.model.dns_choice import Choice
from nsmesh.model.messages import DNSConfig

pytestmark = pytest.mark.root

FILE = f"nameserver {CLUSTER}\nsearch ns.svc.cluster.local svc.cluster.local cluster.local\n"
KUBERNETES, WEB = "kubernetes.default.svc.cluster.local", "web.red.example"


@pytest.fixture
def run():
    """Run ``scene(cluster, wire, second)`` in a pod."""
    return lambda scene: play(scene, f"dns{os.getpid()}")


@asynccontextmanager
async def serving(*configs):
    """Serve in the pod; at the end no task is left."""
    choice = Choice.of(FILE, configs, LOCAL)
    async with Scope("pod") as scope:
        local = LocalServer(LOCAL, 53, choice.groups, scope)
        await local.start()
        try:
            yield local
        finally:
            local.close()
    assert scope.tasks == 0


def red(*servers):
    return DNSConfig(dns_server_ips=servers or [WIRE], search_domains=["red.example"])


def question(name, kind="A", **how):
    return dns.message.make_query(name, kind, **how)


async def ask(name, kind="A", *, tcp=False, patience=10, **how):
    """Return the code, and the texts of the records, by a client that has nothing of ours."""
    by = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    answer = await by(question(name, kind, **how), LOCAL, timeout=patience)
    texts = sorted(item.to_text() for rrset in answer.answer for item in rrset)
    return dns.rcode.to_text(answer.rcode()), texts


@pytest.mark.parametrize("tcp", [False, True])
def test_names_of_a_wire_and_of_the_cluster_go_to_their_own_servers(run, tcp):
    """Over UDP and over TCP; neither hears of the other's names."""

    async def scene(cluster, wire, second):
        async with serving(red()):
            assert await ask(WEB, tcp=tcp) == ("NOERROR", ["172.16.0.9"])
            assert await ask(KUBERNETES, tcp=tcp) == ("NOERROR", ["10.96.0.1"])
            assert await ask("none.red.example", tcp=tcp) == ("NXDOMAIN", [])
            assert await ask("none.example", tcp=tcp) == ("NXDOMAIN", [])
        by = "tcp" if tcp else "udp"
        assert wire.asked == [(by, WEB, "A"), (by, "none.red.example", "A")]
        assert cluster.asked == [(by, KUBERNETES, "A"), (by, "none.example", "A")]

    run(scene)


def test_a_name_without_a_record_of_the_kind_is_known(run):
    """That there is no such record is an answer: nobody else is asked."""

    async def scene(cluster, wire, second):
        async with serving(DNSConfig(dns_server_ips=[WIRE])):
            assert await ask(KUBERNETES, "AAAA") == ("NOERROR", [])
        assert wire.asked == []

    run(scene)


def test_a_server_without_a_domain_is_asked_for_what_the_cluster_does_not_know(run):
    """And never for the cluster's own names, also not for those that do not exist."""

    async def scene(cluster, wire, second):
        async with serving(DNSConfig(dns_server_ips=[WIRE])):
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            assert await ask("none.example") == ("NXDOMAIN", [])
            assert await ask(KUBERNETES) == ("NOERROR", ["10.96.0.1"])
            assert await ask("none.svc.cluster.local") == ("NXDOMAIN", [])
        assert [name for _, name, _ in wire.asked] == [WEB, "none.example"]

    run(scene)


def test_the_name_of_an_address_is_found_at_a_wire(run):
    """The cluster does not know it, the wire does."""

    async def scene(cluster, wire, second):
        wire.names["9.0.16.172.in-addr.arpa", "PTR"] = ["web.red.example."]
        async with serving(red()):
            assert await ask("9.0.16.172.in-addr.arpa", "PTR") == ("NOERROR", ["web.red.example."])

    run(scene)


def test_an_answer_too_long_for_a_datagram_comes_over_tcp(run):
    """The server's truncation is handed on, and so is the size that a client can take."""

    async def scene(cluster, wire, second):
        texts = [f'"{number:03}{"x" * 100}"' for number in range(20)]
        wire.names["long.red.example", "TXT"] = texts
        async with serving(red()):
            query = question("long.red.example", "TXT")
            cut = await dns.asyncquery.udp(query, LOCAL, timeout=10)
            assert cut.flags & dns.flags.TC
            assert not cut.answer
            whole, by_tcp = await dns.asyncquery.udp_with_fallback(query, LOCAL, timeout=10)
            assert by_tcp
            assert sorted(item.to_text() for item in whole.answer[0]) == texts
            assert await ask("long.red.example", "TXT", use_edns=0, payload=4096) == ("NOERROR", texts)
        assert [by for by, _, _ in wire.asked] == ["udp", "udp", "tcp", "udp"]

    run(scene)


@pytest.mark.parametrize("mood", ["SERVFAIL", "REFUSED"])
def test_the_next_server_is_asked_where_the_first_fails(run, mood):
    """An error is no answer as long as another server may have one; of all errors one is told."""

    async def scene(cluster, wire, second):
        wire.mood = mood
        async with serving(red(WIRE, SECOND)):
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            second.mood = mood
            assert await ask(WEB) == (mood, [])
            assert await ask(KUBERNETES) == ("NOERROR", ["10.96.0.1"])

    run(scene)


def test_a_server_that_is_silent_is_asked_last_from_then_on(run):
    """It costs one look-up its time; the ones after it go to the other server at once."""

    async def scene(cluster, wire, second):
        wire.mood = "silent"
        async with serving(red(WIRE, SECOND)):
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            heard = len(wire.asked)
            for _ in range(3):
                assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            assert len(wire.asked) == heard

    run(scene)


def test_a_server_where_nobody_listens_is_passed_over_at_once(run):
    """The kernel says so; it is not waited for."""

    async def scene(cluster, wire, second):
        async with serving(red("172.16.0.1", WIRE)):  # an address of the pod itself, with no server
            loop = asyncio.get_running_loop()
            before = loop.time()
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            assert loop.time() - before < asking.STAGGER

    run(scene)


def test_a_dead_wire_is_told_and_costs_the_cluster_nothing(run, monkeypatch):
    """SERVFAIL for its names, by UDP and TCP; the cluster's are answered meanwhile; then it is back."""
    monkeypatch.setattr(asking, "LIMIT", 1.5)
    monkeypatch.setattr(asking, "LATELY", 1.0)

    async def scene(cluster, wire, second):
        wire.mood = "silent"
        async with serving(red()):
            first = asyncio.create_task(ask(WEB))
            assert await ask(KUBERNETES) == ("NOERROR", ["10.96.0.1"])
            assert not first.done()
            assert await first == ("SERVFAIL", [])
            assert wire.asked == [("udp", WEB, "A")] * 2, "asked once more, as a datagram may be lost"
            assert await ask(WEB, tcp=True) == ("SERVFAIL", [])
            wire.mood = ""
            await asyncio.sleep(1.1)
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])

    run(scene)


def test_a_forged_reply_is_not_taken(run):
    """One with another identity, and one to another question, come before the true one."""

    async def scene(cluster, wire, second):
        wire.forged = True
        async with serving(red()):
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])

    run(scene)


def test_messages_that_are_no_queries_are_answered_in_words_or_not_at_all(run):
    """An update is not implemented, nonsense is a format error, a reply and a stump are dropped."""

    async def scene(cluster, wire, second):
        async with serving(red()) as local:
            query = question(WEB).to_wire()
            for wrong, code in (
                (query[:2] + b"\x28" + query[3:], "NOTIMP"),
                (query[:12] + b"\xff" + query[13:], "FORMERR"),
                (query[:5] + b"\0" + query[6:12], "FORMERR"),
            ):
                said = await local.answer(wrong, tcp=False)
                assert said[:2] == query[:2]
                assert dns.rcode.to_text(said[3] & 15) == code
            assert await local.answer(query[:2] + b"\x80" + query[3:], tcp=False) is None
            assert await local.answer(b"\0" * 11, tcp=False) is None
        assert wire.asked == cluster.asked == []

    run(scene)


def test_a_connection_asks_as_often_as_it_likes(run):
    """Two queries in one write are answered in order; nonsense ends the connection, and it alone."""

    async def scene(cluster, wire, second):
        async with serving(red()):
            reader, writer = await asyncio.open_connection(LOCAL, 53)
            for name in (WEB, KUBERNETES):
                asked = question(name).to_wire()
                writer.write(len(asked).to_bytes(2) + asked)
            for address in ("172.16.0.9", "10.96.0.1"):
                length = int.from_bytes(await reader.readexactly(2))
                answer = dns.message.from_wire(await reader.readexactly(length))
                assert answer.answer[0][0].to_text() == address
            writer.write(b"\0\0")
            assert await reader.read() == b""
            writer.close()
            assert await ask(WEB, tcp=True) == ("NOERROR", ["172.16.0.9"])

    run(scene)


def test_a_connection_that_asks_nothing_is_closed(run, monkeypatch):
    """And connections beyond the most are not kept at all, until others are gone."""
    monkeypatch.setattr(server, "IDLE", 0.5)
    monkeypatch.setattr(server, "CONNECTIONS", 2)

    async def scene(cluster, wire, second):
        async with serving(red()):
            opened = [await asyncio.open_connection(LOCAL, 53) for _ in range(4)]
            for reader, _ in opened:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
            assert await ask(WEB, tcp=True) == ("NOERROR", ["172.16.0.9"])
            for _, writer in opened:
                writer.close()

    run(scene)


def test_a_flood_is_bounded_and_passes(run, monkeypatch):
    """No more queries than allowed are worked on at a time; when it is over, names are found again."""
    monkeypatch.setattr(asking, "LIMIT", 1.0)
    monkeypatch.setattr(server, "PENDING", 20)

    async def scene(cluster, wire, second):
        wire.mood = "silent"
        async with serving(red()) as local:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                asyncio.DatagramProtocol, remote_addr=(LOCAL, 53)
            )
            for number in range(200):
                transport.sendto(question(f"x{number}.red.example").to_wire())
            await asyncio.sleep(0.3)
            assert 0 < local._pending <= 20
            transport.close()
            await asyncio.wait(local._scope._tasks)
            assert local._pending == 0
            assert await ask(KUBERNETES) == ("NOERROR", ["10.96.0.1"])

    run(scene)


def test_an_address_that_is_taken_is_told_and_nothing_is_held(run):
    """By whichever of the two protocols; once it is free it can be had."""

    async def scene(cluster, wire, second):
        async with Scope("pod") as scope:
            loop = asyncio.get_running_loop()
            taken, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=(LOCAL, 53))
            local = LocalServer(LOCAL, 53, Choice.of(FILE, [red()], LOCAL).groups, scope)
            with pytest.raises(OSError, match="in use"):
                await local.start()
            taken.close()
            await asyncio.sleep(0)
            await asyncio.gather(local.start(), local.start())
            assert await ask(WEB) == ("NOERROR", ["172.16.0.9"])
            local.close()

    run(scene)
