"""Prefix pools: nothing is given twice, what comes back is given again, what is excluded never."""

from __future__ import annotations

import time
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from nsmesh.model.prefix import (
    PoolExhausted,
    PrefixError,
    PrefixPool,
    find_overlaps,
    parse_groups,
    parse_prefix,
)


def test_first_pair():
    """The first free address is the endpoint's, the second the client's, from the network address on."""
    pool = PrefixPool(["169.254.0.0/16"])
    assert pool.allocate_pair() == ("169.254.0.0/32", "169.254.0.1/32")
    assert pool.allocate_pair() == ("169.254.0.2/32", "169.254.0.3/32")
    assert PrefixPool(["fd00::/64"]).allocate_pair() == ("fd00::/128", "fd00::1/128")


def test_lowest_first():
    """An address that came back is the next to be given."""
    pool = PrefixPool(["10.0.0.0/29"])
    taken = [pool.allocate() for _ in range(5)]
    assert pool.release(taken[1])
    assert pool.release(taken[3])
    assert [pool.allocate() for _ in range(3)] == [taken[1], taken[3], "10.0.0.5/32"]


def test_excluded():
    """Excluded prefixes of the pool and of the request are passed over; those of the request only once."""
    pool = PrefixPool(["10.0.0.0/28"], excluded=["10.0.0.0/30"])
    assert pool.allocate(["10.0.0.4/31", "10.0.0.7/32", "fd00::/8"]) == "10.0.0.6/32"
    assert pool.allocate() == "10.0.0.4/32"
    assert "10.0.0.1" not in pool


def test_pair_from_one_prefix():
    """A pair never spans two prefixes; the odd one stays free."""
    pool = PrefixPool(["10.0.0.0/32", "10.1.0.0/31"])
    assert pool.allocate_pair() == ("10.1.0.0/32", "10.1.0.1/32")
    assert pool.allocate() == "10.0.0.0/32"


def test_exhausted():
    """The error names the prefix, how many are taken and how many excluded; nothing is lost by it."""
    pool = PrefixPool(["10.0.0.0/29"], excluded=["10.0.0.0/31"])
    for _ in range(4):
        pool.allocate()
    with pytest.raises(
        PoolExhausted, match=r"10\.0\.0\.0/29 has 8, of them 4 taken and 3 excluded"
    ) as caught:
        pool.allocate_pair(["10.0.0.7/32"])
    assert caught.value.remedy
    assert pool.allocate_pair() == ("10.0.0.6/32", "10.0.0.7/32")
    with pytest.raises(PoolExhausted):
        pool.allocate()


def test_reserve():
    """A given address is taken once, if it is in the pool and not excluded."""
    pool = PrefixPool(["10.0.0.0/29"], excluded=["10.0.0.1/32"])
    assert pool.reserve("10.0.0.2") == "10.0.0.2/32"
    with pytest.raises(PrefixError, match="held"):
        pool.reserve("10.0.0.2/32")
    with pytest.raises(PrefixError, match="not in 10"):
        pool.reserve("10.0.0.8/32")
    with pytest.raises(PrefixError, match="not in 10"):
        pool.reserve("10.0.0.1/32")
    with pytest.raises(PrefixError, match="excluded by"):
        pool.reserve("10.0.0.3/32", ["10.0.0.3/32"])
    with pytest.raises(PrefixError, match="no IP address"):
        pool.reserve("x")
    assert pool.is_free("10.0.0.3/32")
    assert not pool.is_free("10.0.0.2/32")
    assert pool.held == ["10.0.0.2/32"]


def test_release_of_what_nobody_holds():
    """Giving back twice, or what was never given, changes nothing."""
    pool = PrefixPool(["10.0.0.0/30"], excluded=["10.0.0.3/32"])
    address = pool.allocate()
    assert pool.release(address)
    assert not pool.release(address)
    assert not pool.release("10.0.0.3/32")
    assert not pool.release("11.0.0.0/32")


def test_overlaps():
    """Overlaps are found; a pool of overlapping prefixes still gives each address once."""
    prefixes = ["10.0.0.0/30", "10.0.0.2/31", "fd00::/127", "10.0.1.0/24"]
    assert find_overlaps(prefixes) == [("10.0.0.0/30", "10.0.0.2/31")]
    pool = PrefixPool(prefixes[:2])
    assert [pool.allocate() for _ in range(4)] == [f"10.0.0.{last}/32" for last in range(4)]
    with pytest.raises(PoolExhausted):
        pool.allocate()


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("", []),
        ("169.254.0.0/16", [["169.254.0.0/16"]]),
        ("[10.0.0.0/24,10.1.0.0/24],[fd00::/64]", [["10.0.0.0/24", "10.1.0.0/24"], ["fd00::/64"]]),
        (" [ 10.0.0.0/24 , 10.1.0.0/24 ] , fd00::/64", [["10.0.0.0/24", "10.1.0.0/24"], ["fd00::/64"]]),
        ("10.0.0.0/24,10.1.0.0/24", [["10.0.0.0/24"], ["10.1.0.0/24"]]),
    ],
)
def test_groups(text, groups):
    """Brackets make groups; a prefix without is a group of its own."""
    assert parse_groups(text) == groups


@pytest.mark.parametrize(
    "text", ["[10.0.0.0/24", "10.0.0.0/24]", "[]", "10.0.0.0/24,", "[10.0.0.0/24]x", "[[]]", "a/8"]
)
def test_bad_groups(text):
    """Anything else is refused."""
    with pytest.raises(PrefixError):
        parse_groups(text)


def test_prefix_without_length():
    """A bare address is no prefix; the error shows what to write."""
    with pytest.raises(PrefixError, match=r"write 10\.0\.0\.1/32"):
        parse_prefix("10.0.0.1")
    assert str(parse_prefix("10.0.0.1/24")) == "10.0.0.0/24"


def test_large_pools():
    """A /8 and an IPv6 /64 cost no more than what is taken of them, also with much excluded."""
    begin = time.process_time()
    excluded = [f"10.{second}.0.0/17" for second in range(256)]
    for prefixes in (["10.0.0.0/8"], ["fd00::/64"]):
        pool = PrefixPool(prefixes, excluded)
        taken = [pool.allocate() for _ in range(5000)]
        for address in taken[::2]:
            pool.release(address)
        assert [pool.allocate() for _ in range(2500)] == taken[::2]
    assert time.process_time() - begin < 3


POOL = ["10.0.0.0/28", "fd00::/125", "10.0.0.8/29", "10.2.0.0/30"]
ALWAYS = ["10.0.0.4/31", "fd00::2/128"]
exclusions = st.lists(
    st.sampled_from(["10.0.0.0/30", "10.0.0.6/32", "fd00::/126", "10.2.0.0/31"]), max_size=3
)


class PoolMachine(RuleBasedStateMachine):
    """Any order of allocate, reserve and release, against a plain list of all addresses."""

    addresses = Bundle("addresses")

    @initialize()
    def begin(self):
        self.pool = PrefixPool(POOL, ALWAYS)
        self.held = set()
        every = [f"{host}/{host.max_prefixlen}" for prefix in POOL for host in ip_network(prefix)]
        self.all = [item for item in dict.fromkeys(every) if not self.inside(item, ALWAYS)]

    @staticmethod
    def inside(address, prefixes):
        host = ip_interface(address).ip
        return any(host in ip_network(prefix) for prefix in prefixes)

    @rule(target=addresses, excluded=exclusions)
    def allocate(self, excluded):
        free = [item for item in self.all if item not in self.held and not self.inside(item, excluded)]
        if not free:
            with pytest.raises(PoolExhausted):
                self.pool.allocate(excluded)
            return ""
        address = self.pool.allocate(excluded)
        assert address == free[0]
        self.held.add(address)
        return address

    @rule(excluded=exclusions)
    def allocate_pair(self, excluded):
        before = self.pool.held
        try:
            pair = self.pool.allocate_pair(excluded)
        except PoolExhausted:
            assert self.pool.held == before
            return
        assert len(set(pair)) == 2
        assert not self.held & set(pair)
        assert not any(self.inside(address, [*ALWAYS, *excluded]) for address in pair)
        self.held |= set(pair)

    @rule(number=st.integers(0, 40), excluded=exclusions)
    def reserve(self, number, excluded):
        address = self.all[number % len(self.all)]
        free = address not in self.held and not self.inside(address, excluded)
        assert self.pool.is_free(address, excluded) == free
        if free:
            assert self.pool.reserve(address, excluded) == address
            self.held.add(address)
        else:
            with pytest.raises(PrefixError):
                self.pool.reserve(address, excluded)

    @rule(address=consumes(addresses))
    def release(self, address):
        if address:
            assert self.pool.release(address) == (address in self.held)
            self.held.discard(address)

    @invariant()
    def agrees(self):
        if hasattr(self, "pool"):
            assert set(self.pool.held) == self.held


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase


@given(st.lists(st.integers(0, 15), unique=True))
def test_released_in_any_order(order):
    """After everything came back, in whatever order, the pool is as at the start."""
    pool = PrefixPool(["10.0.0.0/28"])
    taken = [pool.allocate() for _ in range(16)]
    for number in order:
        assert pool.release(taken[number])
    assert [pool.allocate() for _ in order] == [taken[number] for number in sorted(order)]
