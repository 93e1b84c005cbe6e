"""KeepResolver: the resolver file of a client with wires that name DNS servers."""

import asyncio

import pytest
from structlog.testing import capture_logs

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Invalid, Refused
from nsmesh.core.probes import Inject
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.keep_resolver import KeepResolver
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest
from nsmesh.model.resolver_text import servers

POD = "nameserver 10.96.0.10\noptions ndots:5"
OURS = Call(peer=Peer(in_process=True))
CONFIGS = {"a": DNSConfig(dns_server_ips=["10.1.0.53"]), "b": DNSConfig(dns_server_ips=["10.2.0.53"])}


class ByName(DnsContext):
    """The endpoint: what it says depends on who asks."""

    async def request(self, call, request, next):
        answer = await next.request(call, request)
        del answer.context.dns_context.configs[:]
        answer.context.dns_context.configs.extend(
            [CONFIGS[answer.id]] if answer.id in CONFIGS else [DNSConfig(dns_server_ips=["no address"])]
        )
        return answer


def ask(name):
    connection = Connection(id=name, network_service="s")
    connection.path.path_segments.add(name="nsc", id=name)
    return NetworkServiceRequest(connection=connection)


def run(path, body):
    async def main():
        keeper, fault = KeepResolver(path), Inject(lambda: Refused("no"), "close", times=0)
        made = chain(BeginClient(), keeper, fault, ByName(), end=Tail(), name="client nsc")
        async with made.running():
            await body(made, keeper, fault)

    asyncio.run(main())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    return path


def test_each_wire_adds_and_takes_its_own(path):
    """A Close takes its wire's servers alone; the last gives all back, to the byte, in place."""
    inode = path.stat().st_ino

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        await made.request(OURS, ask("b"))
        assert servers(path.read_text()) == ["10.1.0.53", "10.2.0.53", "10.96.0.10"]
        await made.close(OURS, ask("a").connection)
        assert servers(path.read_text()) == ["10.2.0.53", "10.96.0.10"]
        await made.close(OURS, ask("b").connection)
        assert path.read_text() == POD
        assert not keeper.keeps()

    run(path, body)
    assert path.stat().st_ino == inode


def test_a_changed_answer_is_written(path):
    """An endpoint that names another server at a refresh is followed."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        CONFIGS["a"] = DNSConfig(dns_server_ips=["10.3.0.53"])
        try:
            await made.request(OURS, ask("a"))
        finally:
            CONFIGS["a"] = DNSConfig(dns_server_ips=["10.1.0.53"])
        assert servers(path.read_text()) == ["10.3.0.53", "10.96.0.10"]

    run(path, body)


def test_a_successor_finds_the_original_in_the_file(path):
    """A process that was killed leaves the file as it was; the next one's original is still the first."""

    async def killed(made, keeper, fault):
        await made.request(OURS, ask("a"))

    async def successor(made, keeper, fault):
        await made.request(OURS, ask("b"))
        assert servers(path.read_text()) == ["10.2.0.53", "10.96.0.10"]
        keeper.restore()

    run(path, killed)
    assert path.read_text() != POD
    run(path, successor)
    assert path.read_text() == POD


def test_a_resumed_wire_stays_in_the_file(path):
    """With a journal its servers are known before anybody is asked anew."""

    async def body(made, keeper, fault):
        held = Connection(id="a")
        held.context.dns_context.configs.append(CONFIGS["a"])
        await keeper.resume(OURS, held)
        assert servers(path.read_text()) == ["10.1.0.53", "10.96.0.10"]
        await keeper.forget("a", {})
        assert path.read_text() == POD

    run(path, body)


def test_a_close_that_fails_has_given_the_original_back(path):
    """A server out of reach in front of the file would cost every look-up its time-out."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        fault.times = 1
        with pytest.raises(Refused):
            await made.close(OURS, ask("a").connection)
        assert path.read_text() == POD

    run(path, body)


def test_what_others_wrote_meanwhile_is_the_original_then(path):
    """Whoever replaces the text while a wire is up is not overruled when it ends."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        path.write_text("nameserver 10.96.0.11\n")
        await made.request(OURS, ask("b"))
        assert servers(path.read_text()) == ["10.1.0.53", "10.2.0.53", "10.96.0.11"]
        keeper.restore()
        assert path.read_text() == "nameserver 10.96.0.11\n"

    run(path, body)


def test_a_file_that_goes_costs_no_wire(path):
    """The Request is answered; nothing is made in the file's place."""

    async def body(made, keeper, fault):
        path.unlink()
        answer = await made.request(OURS, ask("a"))
        assert answer.context.dns_context.configs == [CONFIGS["a"]]
        assert not path.exists()

    run(path, body)


def test_a_wrong_address_is_left_out_and_told_once(path):
    """The rest of the file stays as it is; a refresh says nothing new."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("wrong"))
        await made.request(OURS, ask("wrong"))
        assert path.read_text() == POD

    with capture_logs() as logs:
        run(path, body)
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == [
        "connection wrong: no name servers or domains, left out: ['no address']"
    ]


def test_servers_that_no_resolver_asks_are_told(path):
    """The file names all; who wonders why the last is never asked finds it in the log."""
    path.write_text("nameserver 10.96.0.10\nnameserver 10.96.0.11\n")

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        await made.request(OURS, ask("b"))

    with capture_logs() as logs:
        run(path, body)
    assert [one["event"] for one in logs if one["log_level"] == "warning"] == [
        "resolvers ask 3 name servers at most: not 10.96.0.11"
    ]


def test_a_file_that_is_not_there_is_refused_at_once(tmp_path):
    """Before a wire is asked for, and the variable is named."""
    with pytest.raises(Invalid, match=r"NSM_RESOLVER_FILE: cannot read and write .*/none: No such file"):
        KeepResolver(tmp_path / "none")
