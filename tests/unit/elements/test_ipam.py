"""Ipam: addresses for each connection."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.errors import Exhausted, Invalid, Refused
from nsmesh.core.probes import Inject
from nsmesh.core.virtual import run
from nsmesh.elements.ipam import Ipam
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    Connection,
    ConnectionContext,
    IPContext,
    NetworkServiceRequest,
    Route,
    State,
)


def request(connection_id="nse-1", **ip):
    context = ConnectionContext(ip_context=IPContext(**ip))
    return NetworkServiceRequest(connection=Connection(id=connection_id, context=context))


async def ask(handler, made):
    answer = await handler.request(Call(), made)
    return answer, answer.context.ip_context


async def again(handler, answer, **ip):
    refresh = NetworkServiceRequest(connection=copy_of(answer))
    refresh.connection.context.ip_context.MergeFrom(IPContext(**ip))
    return await ask(handler, refresh)


def test_first_free_is_the_endpoints_second_the_clients():
    """The pair and its host routes are those of the field's responder."""

    async def scenario():
        handler = chain(Ipam([["169.254.0.0/16"]]))
        _, first = await ask(handler, request("a"))
        assert list(first.dst_ip_addrs) == ["169.254.0.0/32"]
        assert list(first.src_ip_addrs) == ["169.254.0.1/32"]
        assert list(first.src_routes) == [Route(prefix="169.254.0.0/32")]
        assert list(first.dst_routes) == [Route(prefix="169.254.0.1/32")]
        _, second = await ask(handler, request("b"))
        assert list(second.dst_ip_addrs) == ["169.254.0.2/32"]

    run(scenario())


def test_one_pair_from_each_group():
    """Two groups give two pairs; a group's second prefix is used when its first is full."""

    async def scenario():
        handler = chain(Ipam([["10.0.0.0/31", "10.1.0.0/31"], ["fd00::/126"]]))
        _, first = await ask(handler, request("a"))
        assert list(first.dst_ip_addrs) == ["10.0.0.0/32", "fd00::/128"]
        assert list(first.src_ip_addrs) == ["10.0.0.1/32", "fd00::1/128"]
        _, second = await ask(handler, request("b"))
        assert list(second.dst_ip_addrs) == ["10.1.0.0/32", "fd00::2/128"]

    run(scenario())


def test_a_refresh_changes_nothing():
    """The same connection keeps its pair, and its answer does not grow."""

    async def scenario():
        handler = chain(Ipam([["10.0.0.0/24"], ["fd00::/64"]]))
        answer, _ = await ask(handler, request())
        refreshed, _ = await again(handler, answer)
        assert refreshed == answer

    run(scenario())


def test_excluded_prefixes_are_not_given_out():
    """The first pair outside the excluded prefixes is taken."""

    async def scenario():
        handler = chain(Ipam([["10.0.0.0/24"]]))
        _, ip = await ask(handler, request(excluded_prefixes=["10.0.0.0/30", "192.168.0.0/16"]))
        assert list(ip.dst_ip_addrs) == ["10.0.0.4/32"]

    run(scenario())


def test_a_refresh_that_excludes_the_pair_gets_another():
    """The old pair and its routes are gone from the answer and free again."""

    async def scenario():
        ipam = Ipam([["10.0.0.0/24"]])
        handler = chain(ipam)
        answer, _ = await ask(handler, request("a"))
        _, ip = await again(handler, answer, excluded_prefixes=["10.0.0.0/31"])
        assert list(ip.dst_ip_addrs) == ["10.0.0.2/32"]
        assert list(ip.src_ip_addrs) == ["10.0.0.3/32"]
        assert list(ip.src_routes) == [Route(prefix="10.0.0.2/32")]
        assert list(ip.dst_routes) == [Route(prefix="10.0.0.3/32")]
        _, other = await ask(handler, request("b"))
        assert list(other.dst_ip_addrs) == ["10.0.0.0/32"]

    run(scenario())


def test_a_failed_refresh_keeps_the_old_pair():
    """What the refresh would have changed is taken back: the client goes on with what it has."""

    async def scenario():
        ipam = Ipam([["10.0.0.0/24"]])
        fault = Inject(lambda: Refused("no"), times=0)
        handler = chain(Begin(), ipam, fault)
        answer, _ = await ask(handler, request("a"))
        before = ipam.leases
        fault.times = 1
        with pytest.raises(Refused):
            await again(handler, answer, excluded_prefixes=["10.0.0.0/31"])
        assert ipam.leases == before
        _, other = await ask(handler, request("b"))
        assert list(other.dst_ip_addrs) == ["10.0.0.2/32"]

    run(scenario())


def test_a_failed_first_request_and_a_close_give_back():
    """Nothing stays taken."""

    async def scenario():
        ipam = Ipam([["10.0.0.0/31"]])
        handler = chain(Begin(), ipam, Inject(lambda: Refused("no"), times=1))
        with pytest.raises(Refused):
            await ask(handler, request("a"))
        answer, _ = await ask(handler, request("b"))
        await handler.close(Call(), answer)
        assert ipam.leases == {}
        await ask(handler, request("c"))

    run(scenario())


def test_exhaustion_names_the_prefix_and_the_counts():
    """The error says which prefix is full, and how full; what was taken for it is given back."""

    async def scenario():
        handler = chain(Ipam([["10.0.0.0/24"], ["fd00::/127"]]))
        answer, _ = await ask(handler, request("a"))
        with pytest.raises(Exhausted) as caught:
            await ask(handler, request("b"))
        assert "connection b" in str(caught.value)
        assert "fd00::/127 has 2, of them 2 taken and 0 excluded" in str(caught.value)
        await handler.close(Call(), answer)
        _, ip = await ask(handler, request("b"))
        assert list(ip.dst_ip_addrs) == ["10.0.0.0/32", "fd00::/128"]

    run(scenario())


def test_a_restarted_endpoint_takes_back_what_the_request_brings():
    """Addresses of the pool that nobody holds are kept, and are then held."""

    async def scenario():
        answer, _ = await ask(chain(Ipam([["10.0.0.0/24"]])), request("a", excluded_prefixes=["10.0.0.0/28"]))
        del answer.context.ip_context.excluded_prefixes[:]
        restarted = Ipam([["10.0.0.0/24"]])
        handler = chain(restarted)
        kept, _ = await again(handler, answer)
        assert kept.context == answer.context
        _, other = await ask(
            handler, request("b", dst_ip_addrs=["10.0.0.16/32"], src_ip_addrs=["10.0.0.17/32"])
        )
        assert list(other.dst_ip_addrs) == ["10.0.0.0/32"]
        assert list(other.src_ip_addrs) == ["10.0.0.1/32"]

    run(scenario())


def test_a_reselecting_request_leaves_nothing_of_the_endpoint_before():
    """Whoever moves brings the addresses of where it was; they may be somebody else's by now."""

    async def scenario():
        brought = request(dst_ip_addrs=["192.0.2.1/32"], src_ip_addrs=["192.0.2.2/32"])
        brought.connection.state = State.RESELECT_REQUESTED
        _, found = await ask(chain(Ipam([["10.0.0.0/24"]])), brought)
        assert (list(found.dst_ip_addrs), list(found.src_ip_addrs)) == (["10.0.0.0/32"], ["10.0.0.1/32"])

    run(scenario())


def test_polite_keeps_addresses_of_other_origin_strict_does_not():
    """Addresses out of the pools stay in polite mode and go, with their routes, in strict mode."""
    brought = {
        "dst_ip_addrs": ["192.0.2.1/32"],
        "src_ip_addrs": ["192.0.2.2/32"],
        "src_routes": [Route(prefix="192.0.2.1/32"), Route(prefix="198.51.100.0/24")],
    }

    async def scenario():
        _, polite = await ask(chain(Ipam([["10.0.0.0/24"]])), request(**brought))
        assert list(polite.dst_ip_addrs) == ["192.0.2.1/32", "10.0.0.0/32"]
        assert len(polite.src_routes) == 3
        _, strict = await ask(chain(Ipam([["10.0.0.0/24"]], "strict")), request(**brought))
        assert list(strict.dst_ip_addrs) == ["10.0.0.0/32"]
        assert list(strict.src_ip_addrs) == ["10.0.0.1/32"]
        assert [route.prefix for route in strict.src_routes] == ["198.51.100.0/24", "10.0.0.0/32"]

    run(scenario())


def test_configuration_and_requests_that_make_no_sense_are_refused():
    """Overlapping groups at once, wrong excluded prefixes when they come."""
    with pytest.raises(Invalid, match="in common"):
        Ipam([["10.0.0.0/24"], ["10.0.0.128/25"]])

    async def scenario():
        with pytest.raises(Invalid, match="excluded_prefixes"):
            await ask(chain(Ipam([["10.0.0.0/24"]])), request(excluded_prefixes=["all"]))

    run(scenario())


EXCLUDED = st.lists(st.sampled_from(["10.0.0.0/30", "10.0.0.4/31", "10.0.0.8/29", "fd00::/126"]), max_size=2)


class AnyOrder(RuleBasedStateMachine):
    """Requests, refreshes, restarts of clients, failures, cancellations and Closes in any order."""

    connections = Bundle("connections")

    def __init__(self) -> None:
        super().__init__()
        self.ipam = Ipam([["10.0.0.0/28"], ["fd00::/124"]])
        self.fault = Inject(lambda: Refused("no"), times=0)
        self.chain = chain(Begin(), self.ipam, self.fault)
        self.living: dict[str, Connection] = {}
        self.number = 0

    def ask(self, made, fails):
        self.fault.times = int(fails)
        try:
            return asyncio.run(self.chain.request(Call(), made))
        except (Refused, Exhausted):
            return None
        finally:
            self.fault.times = 0

    @rule(target=connections, fails=st.booleans(), excluded=EXCLUDED, wish=st.none() | connections)
    def first(self, fails, excluded, wish):
        self.number += 1
        made = request(f"c{self.number}")
        if wish in self.living:  # it brings the addresses of somebody else
            made.connection.context.CopyFrom(self.living[wish].context)
        made.connection.context.ip_context.excluded_prefixes.extend(excluded)
        answer = self.ask(made, fails)
        if answer is None:
            return multiple()
        self.living[answer.id] = answer
        return answer.id

    @rule(connection_id=connections, fails=st.booleans(), excluded=EXCLUDED, bare=st.booleans())
    def refresh(self, connection_id, fails, excluded, bare):
        made = NetworkServiceRequest(connection=copy_of(self.living[connection_id]))
        if bare:
            made.connection.ClearField("context")
        del made.connection.context.ip_context.excluded_prefixes[:]
        made.connection.context.ip_context.excluded_prefixes.extend(excluded)
        answer = self.ask(made, fails)
        if answer is not None:
            self.living[connection_id] = answer

    @rule(connection_id=consumes(connections), fails=st.booleans())
    def end(self, connection_id, fails):
        del self.living[connection_id]
        asyncio.run(self.chain.close(Call(), Connection(id=connection_id)))

    @invariant()
    def no_address_is_held_twice_and_none_is_lost(self):
        """Compare what living connections were answered with what the pools hold."""
        answered = [
            address
            for made in self.living.values()
            for address in (*made.context.ip_context.src_ip_addrs, *made.context.ip_context.dst_ip_addrs)
        ]
        assert len(answered) == len(set(answered))
        held = [address for pool in self.ipam._pools for address in pool.held]
        assert sorted(answered) == sorted(held)


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestAnyOrder = AnyOrder.TestCase
