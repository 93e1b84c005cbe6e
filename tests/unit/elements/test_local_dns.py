"""LocalDns: the resolver file of a client, and whom it asks, with wires that name DNS servers."""

import asyncio
import socket

import pytest
from structlog.testing import capture_logs

from nsmesh.core.begin_client import BeginClient
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Refused
from nsmesh.core.probes import Inject
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.local_dns import LocalDns
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest
from nsmesh.model.resolver_text import domains, servers

POD = "nameserver 10.96.0.10\nsearch cluster.local\noptions ndots:5"
OURS = Call(peer=Peer(in_process=True))
LOCAL, OWN = "127.0.0.1", ("10.96.0.10",)
CONFIGS = {
    "a": DNSConfig(dns_server_ips=["10.1.0.53"], search_domains=["red.example"]),
    "b": DNSConfig(dns_server_ips=["10.2.0.53"], search_domains=["blue.example"]),
}


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


def run(path, body, port=0):
    async def main():
        keeper, fault = LocalDns(path, LOCAL, port), Inject(lambda: Refused("no"), "close", times=0)
        made = chain(BeginClient(), keeper, fault, ByName(), end=Tail(), name="client nsc")
        async with made.running():
            await body(made, keeper, fault)

    asyncio.run(main())


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "resolv.conf"
    path.write_text(POD)
    return path


def asked(keeper):
    """Return who is asked for a name of each wire."""
    return [keeper._groups(f"web.{colour}.example") for colour in ("red", "blue")]


def test_each_wire_adds_and_takes_its_own(path):
    """A Close takes its wire's servers alone; the last gives all back, to the byte, in place."""
    inode = path.stat().st_ino

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        await made.request(OURS, ask("b"))
        assert servers(path.read_text()) == [LOCAL]
        assert domains(path.read_text()) == ["cluster.local", "red.example", "blue.example"]
        assert asked(keeper) == [[("10.1.0.53",)], [("10.2.0.53",)]]
        await made.close(OURS, ask("a").connection)
        assert domains(path.read_text()) == ["cluster.local", "blue.example"]
        assert asked(keeper) == [[OWN], [("10.2.0.53",)]]
        await made.close(OURS, ask("b").connection)
        assert path.read_text() == POD
        assert asked(keeper) == [[OWN], [OWN]]
        assert not keeper.keeps()

    run(path, body)
    assert path.stat().st_ino == inode


def test_without_servers_of_wires_nothing_is_done(path):
    """No file is written, and no socket is held: the pod may serve DNS itself."""

    async def body(made, keeper, fault):
        stamp = path.stat().st_mtime_ns
        CONFIGS["quiet"] = DNSConfig()
        try:
            await made.request(OURS, ask("quiet"))
        finally:
            del CONFIGS["quiet"]
        await made.close(OURS, ask("quiet").connection)
        assert path.stat().st_mtime_ns == stamp
        assert keeper._server._udp is None

    run(path, body)


def test_a_changed_answer_is_written(path):
    """An endpoint that names another server at a refresh is followed."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        first = CONFIGS["a"]
        CONFIGS["a"] = DNSConfig(dns_server_ips=["10.3.0.53"], search_domains=["blue.example"])
        try:
            await made.request(OURS, ask("a"))
        finally:
            CONFIGS["a"] = first
        assert asked(keeper) == [[OWN], [("10.3.0.53",)]]
        assert domains(path.read_text()) == ["cluster.local", "blue.example"]

    run(path, body)


def test_a_successor_gives_the_original_back_at_once(path):
    """A process that was killed leaves a file that names nobody; the next has it right before it asks."""

    async def killed(made, keeper, fault):
        await made.request(OURS, ask("a"))

    async def successor(made, keeper, fault):
        assert path.read_text() == POD
        await made.request(OURS, ask("b"))
        assert asked(keeper) == [[OWN], [("10.2.0.53",)]]
        keeper.restore()

    run(path, killed)
    assert path.read_text() != POD
    run(path, successor)
    assert path.read_text() == POD


def test_a_resumed_wire_is_served_again(path):
    """With a journal its servers are known before anybody is asked anew."""

    async def body(made, keeper, fault):
        held = Connection(id="a")
        held.context.dns_context.configs.append(CONFIGS["a"])
        await keeper.resume(OURS, held)
        assert asked(keeper) == [[("10.1.0.53",)], [OWN]]
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
        assert servers(path.read_text()) == [LOCAL]
        assert keeper._groups("www.example.org") == [("10.96.0.11",)]
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


def test_a_taken_port_is_told_once_and_tried_again(path):
    """The file does not name a server that is not ours; the wire is up, and named as soon as it can be."""

    async def body(made, keeper, fault):
        await made.request(OURS, ask("a"))
        await made.request(OURS, ask("a"))
        assert path.read_text() == POD
        taken.close()
        await made.request(OURS, ask("a"))
        assert servers(path.read_text()) == [LOCAL]

    with socket.socket() as taken, capture_logs() as logs:
        taken.bind((LOCAL, 0))
        taken.listen()
        run(path, body, taken.getsockname()[1])
    (told,) = [one for one in logs if one["log_level"] == "warning"]
    assert told["event"].startswith(f"names of wires are not served: nothing can listen at {LOCAL}:")
    assert "NSM_LOCAL_DNS_SERVER_ENABLED=false" in told["remedy"]


def test_a_file_that_cannot_be_read_is_told_and_costs_no_wire(tmp_path):
    """As a folder in its place, which not even root can read."""

    async def body(made, keeper, fault):
        answer = await made.request(OURS, ask("a"))
        assert answer.context.dns_context.configs == [CONFIGS["a"]]

    with capture_logs() as logs:
        run(tmp_path, body)
    (told,) = [one for one in logs if one["log_level"] == "warning"]
    assert told["event"] == f"names of wires are not served: {tmp_path} cannot be written: Is a directory"
