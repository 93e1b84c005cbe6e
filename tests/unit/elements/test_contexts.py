"""DnsContext, PolicyRoutes and Passthrough: what endpoints put into connections."""

from __future__ import annotations

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import Tail, chain
from nsmesh.core.errors import Refused
from nsmesh.core.probes import Check, Inject
from nsmesh.core.virtual import run
from nsmesh.elements.dns_context import DnsContext
from nsmesh.elements.passthrough import Passthrough
from nsmesh.elements.policy_route import PolicyRoutes
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, DNSConfig, NetworkServiceRequest, PolicyRoute, State


def request(**fields):
    return NetworkServiceRequest(connection=Connection(id="c", **fields))


def refresh(answer):
    return NetworkServiceRequest(connection=copy_of(answer))


def test_the_contexts_are_there_even_when_empty():
    """Clients and forwarders of the field dereference them."""

    async def scenario():
        answer = await chain(DnsContext()).request(Call(), request())
        assert answer.HasField("context")
        assert answer.context.HasField("ip_context")
        assert answer.context.HasField("dns_context")

    run(scenario())


def test_dns_configurations_are_added_once():
    """A refresh does not repeat them; what others put in stays."""
    config = DNSConfig(dns_server_ips=["10.0.0.53"], search_domains=["corp"])
    other = DNSConfig(dns_server_ips=["10.0.0.54"])

    async def scenario():
        handler = chain(DnsContext([config]))
        made = request()
        made.connection.context.dns_context.configs.append(other)
        answer = await handler.request(Call(), made)
        assert list(answer.context.dns_context.configs) == [other, config]
        assert await handler.request(Call(), refresh(answer)) == answer

    run(scenario())


def test_policies_and_their_sources():
    """Policies are the endpoint's; their sources are addresses of the client, once."""
    policies = [
        PolicyRoute(proto="6", dst_port="6666", **{"from": "172.16.2.201/24"}),
        PolicyRoute(proto="17"),
        PolicyRoute(proto="1", **{"from": "172.16.2.201/24"}),
    ]

    async def scenario():
        handler = chain(Begin(), PolicyRoutes(policies))
        made = request()
        made.connection.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
        answer = await handler.request(Call(), made)
        assert list(answer.context.ip_context.policies) == policies
        assert list(answer.context.ip_context.src_ip_addrs) == ["10.0.0.1/32", "172.16.2.201/24"]
        assert await handler.request(Call(), refresh(answer)) == answer

    run(scenario())


def test_changed_policies_come_with_the_next_refresh():
    """Addresses of policies that are gone go; those that were there without them stay."""

    async def scenario():
        element = PolicyRoutes(
            [PolicyRoute(**{"from": "172.16.2.1/24"}), PolicyRoute(**{"from": "10.0.0.1/32"})]
        )
        handler = chain(Begin(), element)
        made = request()
        made.connection.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
        answer = await handler.request(Call(), made)
        element.policies = (PolicyRoute(**{"from": "172.16.3.1/24"}),)
        answer = await handler.request(Call(), refresh(answer))
        assert list(answer.context.ip_context.src_ip_addrs) == ["10.0.0.1/32", "172.16.3.1/24"]
        element.policies = ()
        answer = await handler.request(Call(), refresh(answer))
        assert list(answer.context.ip_context.src_ip_addrs) == ["10.0.0.1/32"]
        assert not answer.context.ip_context.policies

    run(scenario())


class Onward(Tail):
    """The rest of the chain: chooses an endpoint where none is named, remembers what it saw."""

    def __init__(self):
        self.seen = []
        self.closed = []
        self.choice = "gateway"

    async def request(self, call, request):
        made = request.connection
        self.seen.append((dict(made.labels), made.network_service_endpoint_name))
        made.network_service_endpoint_name = made.network_service_endpoint_name or self.choice
        return made

    async def close(self, call, connection):
        self.closed.append((dict(connection.labels), connection.network_service_endpoint_name))


def test_passthrough_asks_under_its_own_labels():
    """Downstream sees the function's labels and chooses; the client sees its labels and its endpoint."""

    async def scenario():
        onward = Onward()
        handler = chain(Begin(), Passthrough({"app": "firewall"}), end=onward)
        made = request(labels={"color": "red"}, network_service_endpoint_name="fw-1")
        answer = await handler.request(Call(), made)
        assert dict(answer.labels) == {"color": "red"}
        assert answer.network_service_endpoint_name == "fw-1"
        await handler.request(Call(), refresh(answer))
        assert onward.seen == [({"app": "firewall"}, ""), ({"app": "firewall"}, "gateway")]
        await handler.close(Call(), answer)
        assert onward.closed == [({"app": "firewall"}, "gateway")]

    run(scenario())


def test_passthrough_forgets_the_endpoint_behind_when_it_reselects():
    """A reselecting Request lets the next endpoint be chosen anew."""

    async def scenario():
        onward = Onward()
        handler = chain(Begin(), Passthrough({"app": "firewall"}), end=onward)
        answer = await handler.request(Call(), request(network_service_endpoint_name="fw-1"))
        onward.choice = "other"
        again = refresh(answer)
        again.connection.state = State.RESELECT_REQUESTED
        await handler.request(Call(), again)
        assert onward.seen[-1] == ({"app": "firewall"}, "")
        await handler.close(Call(), answer)
        assert onward.closed[-1][1] == "other"

    run(scenario())


def test_passthrough_undo_is_under_the_own_labels():
    """The Close after a failed Request carries what the Request carried."""

    async def scenario():
        closed = []
        watch = Check("close", lambda call, made: closed.append(dict(made.labels)))
        handler = chain(Begin(), Passthrough({"app": "firewall"}), watch, Inject(lambda: Refused("no")))
        with pytest.raises(Refused):
            await handler.request(Call(), request(labels={"color": "red"}))
        assert closed == [{"app": "firewall"}]

    run(scenario())
