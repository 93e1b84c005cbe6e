"""The transparent firewall on real interfaces: client - firewall - service, three namespaces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from endpoint_lab import Lab, Resident, http, ip, ping, run, until

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Conflict, NotFound
from nsmesh.datapath import netns
from nsmesh.elements.translate_mechanism import TranslateMechanism
from nsmesh.endpoints.firewall import Firewall
from nsmesh.endpoints.rules import parse_ruleset
from nsmesh.endpoints.transparent import Transparent
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

pytestmark = pytest.mark.root

RULES = [
    {"name": "web", "action": "allow", "protocol": "tcp", "ports": 8080},
    {"name": "names", "action": "allow", "protocol": "udp", "ports": 53},
    {"name": "ping", "action": "allow", "protocol": "icmp"},
    {"name": "ping6", "action": "allow", "protocol": "icmpv6"},
]


@dataclass
class Wire:
    lab: Lab
    client: str
    firewall: str
    service: str
    home: Resident
    transparent: Transparent

    def link(self, which: str) -> None:
        far, name, number = (self.client, "in", 1) if which == "client" else (self.service, "out", 2)
        self.lab.veth(self.firewall, name, far, "eth")
        ip("-n", far, "addr", "add", f"10.0.0.{number}/24", "dev", "eth")
        ip("-n", far, "addr", "add", f"fd00::{number}/64", "dev", "eth", "nodad")

    def reload(self, *rules: dict[str, object], **options: object) -> None:
        self.home.call(self.transparent.reload(parse_ruleset({"rules": list(rules), **options})))

    def count(self, name: str) -> int:
        counted = self.home.call(self.transparent.counters("w"))
        return next(item.packets for item in counted if item.name == name)


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Lab() as lab:
        client, firewall, service = (lab.namespace(label) for label in ("client", "fw", "service"))
        home = lab.resident(firewall)
        transparent = Transparent(home.scope, parse_ruleset(RULES))
        made = Wire(lab, client, firewall, service, home, transparent)
        made.link("client")
        made.link("service")
        home.hold(transparent.running(), lab)
        passage = home.call(transparent.wire("w", "in", "out"))
        assert passage.state == "wired"
        yield made


def test_what_a_rule_allows_passes_and_the_rest_is_refused_at_once(wire: Wire):
    """HTTP on 8080 and ping pass in IPv4 and IPv6; port 80 is refused within a fraction of a second."""
    wire.lab.serve(wire.service, 80, 8080)
    wire.lab.serve(wire.service, 80, 8080, family="fd00::2")
    assert ping(wire.client, "10.0.0.2")
    assert ping(wire.client, "fd00::2")
    for address in ("10.0.0.2", "[fd00::2]"):
        assert http(wire.client, f"http://{address}:8080/")[:2] == (0, "port 8080")
        code, _, seconds = http(wire.client, f"http://{address}:80/")
        assert code == 7
        assert seconds < 0.5
    assert wire.count("web") == 2
    assert wire.count("default") >= 2
    assert wire.count("established") > 4


def test_the_far_side_cannot_begin(wire: Wire):
    """What the service sends unasked does not reach the client, until a rule of direction out lets it."""
    wire.lab.serve(wire.client, 8080)
    assert http(wire.service, "http://10.0.0.1:8080/")[0] == 7
    assert not ping(wire.service, "10.0.0.1")
    assert not ping(wire.service, "fd00::1")
    assert ping(wire.client, "10.0.0.2")
    wire.reload({"name": "back", "action": "allow", "direction": "out", "from": "10.0.0.2"})
    assert ping(wire.service, "10.0.0.1")
    assert http(wire.service, "http://10.0.0.1:8080/")[:2] == (0, "port 8080")
    assert not ping(wire.service, "fd00::1")
    assert not ping(wire.client, "10.0.0.2")


def test_udp_answers_pass_and_refused_udp_is_told(wire: Wire):
    """A datagram's answer passes; one to another port is answered by port-unreachable."""
    with (
        _udp(wire.service, "10.0.0.2", 53) as server,
        _udp(wire.client, "10.0.0.1", 0) as client,
        _udp(wire.client, "10.0.0.1", 0) as other,
    ):
        client.sendto(b"question", ("10.0.0.2", 53))
        question, sender = server.recvfrom(100)
        server.sendto(b"answer", sender)
        assert (question, client.recv(100)) == (b"question", b"answer")
        server.sendto(b"unasked", other.getsockname())
        server.sendto(b"again", sender)
        assert client.recv(100) == b"again"
        other.connect(("10.0.0.2", 54))
        other.send(b"question")
        with pytest.raises(ConnectionRefusedError):
            other.recv(100)


def test_fragments_of_what_is_allowed_pass(wire: Wire):
    """A ping larger than the MTU goes both ways, whole."""
    assert ping(wire.client, "10.0.0.2", "-s", "4000")
    assert ping(wire.client, "fd00::2", "-s", "4000")


def test_a_reload_keeps_established_flows(wire: Wire):
    """A connection lives on under rules that would refuse it; a new one is refused; no count is lost."""
    with _listener(wire.service, 8080) as listener:
        client = _connect(wire.client, "10.0.0.2", 8080)
        server, _ = listener.accept()
        server.settimeout(3)
        with client, server:
            before = wire.count("established")
            wire.reload({"name": "none", "action": "deny"})
            client.sendall(b"there")
            assert server.recv(100) == b"there"
            server.sendall(b"back")
            assert client.recv(100) == b"back"
            with pytest.raises(ConnectionRefusedError):
                _connect(wire.client, "10.0.0.2", 8080)
            assert wire.count("established") > before
            assert wire.count("none") >= 1
            with pytest.raises(StopIteration):
                wire.count("web")


def test_drop_is_silent(wire: Wire):
    """With deny_with drop the client hears nothing, and waits."""
    wire.reload(deny_with="drop")
    assert http(wire.client, "http://10.0.0.2:80/")[0] == 28
    assert wire.count("default") >= 1


def test_other_ethertypes_follow_their_option(wire: Wire):
    """A frame that is neither IP nor ARP is dropped, and passes once that is allowed."""
    with _raw(wire.client) as sender, _raw(wire.service) as receiver:
        frame = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"experiment" * 6
        sender.send(frame)
        until(lambda: wire.count("other ethertypes") == 1)
        wire.reload(other_ethertypes="allow")
        sender.send(frame)
        assert receiver.recv(2000) == frame


def test_an_interface_that_is_made_anew_is_wired_anew(wire: Wire):
    """When a forwarder makes an interface again under the same name, the wire works again by itself."""
    assert ping(wire.client, "10.0.0.2")
    ip("-n", wire.service, "link", "del", "eth")
    until(lambda: not wire.transparent.passages["w"].ready.is_set())
    assert wire.transparent.passages["w"].trouble == ""
    wire.link("service")
    until(wire.transparent.passages["w"].ready.is_set)
    ip("-n", wire.client, "neigh", "flush", "dev", "eth")  # the new interface has a new MAC
    assert ping(wire.client, "10.0.0.2")
    assert wire.count("ping") == 2


def test_the_namespace_itself_is_silent_and_deaf(wire: Wire):
    """Addresses that somebody puts on the interfaces are taken off, later ones and IPv6 ones too."""

    def addresses() -> str:
        return ip("-n", wire.firewall, "addr", "show", "dev", "in")

    assert "inet" not in addresses()
    assert "PROMISC" in addresses()
    run(wire.firewall, "sysctl", "-w", "net.ipv6.conf.in.disable_ipv6=0")
    ip("-n", wire.firewall, "addr", "add", "fd00::2/128", "dev", "in")
    ip("-n", wire.firewall, "addr", "add", "10.0.0.2/32", "dev", "in")
    until(lambda: "inet" not in addresses())
    assert ping(wire.client, "10.0.0.2")


def test_close_leaves_no_table(wire: Wire):
    """Unwire removes the wire's table, twice is no harm, and nothing passes then."""
    wire.home.call(wire.transparent.unwire("w"))
    wire.home.call(wire.transparent.unwire("w"))
    assert run(wire.firewall, "nft", "list", "ruleset").stdout == ""
    assert not ping(wire.client, "10.0.0.2")
    with pytest.raises(NotFound):
        wire.count("ping")


def test_a_restarted_firewall_adopts_its_wires_and_sweeps_the_others(wire: Wire):
    """A second instance takes a wire over with its flows, and removes tables of wires that are gone."""
    with _listener(wire.service, 8080) as listener:
        client = _connect(wire.client, "10.0.0.2", 8080)
        server, _ = listener.accept()
        with client, server:
            second = Transparent(wire.home.scope, parse_ruleset([]))
            wire.home.call(second.wire("w", "in", "out"))
            server.sendall(b"still here")
            client.settimeout(3)
            assert client.recv(100) == b"still here"
            third = Transparent(wire.home.scope, parse_ruleset([]))
            assert len(wire.home.call(third.sweep())) == 1
    assert run(wire.firewall, "nft", "list", "ruleset").stdout == ""


def test_two_wires_cannot_share_an_interface(wire: Wire):
    """A second wire that wants an interface of the first is refused, and says whose it is."""
    with pytest.raises(Conflict, match="belongs to wire w"):
        wire.home.call(wire.transparent.wire("x", "in", "other"))


class NextEndpoint(Tail):
    """Answers as the next endpoint of the chain would."""

    async def request(self, call: Call, request: NetworkServiceRequest) -> Connection:
        request.connection.mechanism.CopyFrom(_kernel("out"))
        return request.connection


def test_the_element_wires_what_was_agreed_and_closes_it(wire: Wire):
    """In a chain: a Request joins both interfaces, a refresh changes nothing, Close leaves no table."""
    wire.home.call(wire.transparent.unwire("w"))
    firewall = Firewall(parse_ruleset(RULES))
    server = chain(Begin(), firewall, TranslateMechanism(), end=NextEndpoint())

    def request() -> NetworkServiceRequest:
        return NetworkServiceRequest(connection=Connection(id="c-1", mechanism=_kernel("in")))

    server.scope = firewall.scope = wire.home.scope
    wire.home.hold(firewall.running(), wire.lab)
    for _ in range(2):
        answer = wire.home.call(server.request(Call(), request()))
        assert answer.mechanism == _kernel("in")
        assert firewall.passages["c-1"].state == "wired"
        assert ping(wire.client, "10.0.0.2")
    counters = wire.home.call(firewall.counters())
    assert next(item.packets for item in counters["c-1"] if item.name == "ping") == 2
    wire.home.call(firewall.reload(parse_ruleset([])))
    assert not ping(wire.client, "10.0.0.2")
    wire.home.call(server.close(Call(), answer))
    assert run(wire.firewall, "nft", "list", "ruleset").stdout == ""


def _kernel(name: str) -> Mechanism:
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"name": name})


def _udp(space: str, address: str, port: int) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        made.settimeout(3)
        return made

    return netns.call_in(f"/run/netns/{space}", make)


def _listener(space: str, port: int) -> socket.socket:
    return netns.call_in(f"/run/netns/{space}", lambda: socket.create_server(("", port)))


def _connect(space: str, address: str, port: int) -> socket.socket:
    return netns.call_in(f"/run/netns/{space}", lambda: socket.create_connection((address, port), timeout=3))


def _raw(space: str) -> socket.socket:
    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        made.bind(("eth", 0x88B5))
        made.settimeout(3)
        return made

    return netns.call_in(f"/run/netns/{space}", make)
