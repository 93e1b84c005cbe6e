from hypothesis import given
from hypothesis import strategies as st

from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath.netlink import frames
from nsmesh.datapath.packed import Prefix
from nsmesh.datapath.plan import Add, Promote, Remove, Set, diff
from nsmesh.datapath.veth import configuration, message_of
from nsmesh.datapath.wirestate import (
    RT_TABLE_MAIN,
    EndState,
    NeighbourState,
    RouteState,
    RuleState,
    rule_table,
)

TABLES = [rule_table(70000, 0), rule_table(70000, 1)]
IPS = [bytes([10, 0, 0, last]) for last in range(1, 5)] + [bytes([0xFD]) + bytes(14) + bytes([1])]
MACS = [b"\2\0\0\0\0\1", b"\2\0\0\0\0\2"]

prefixes = st.builds(
    lambda ip, part: Prefix(ip, len(ip) * 8 // part), st.sampled_from(IPS), st.sampled_from([1, 2])
)
routes = st.builds(
    RouteState, prefixes, st.sampled_from([b"", IPS[0]]), st.sampled_from([RT_TABLE_MAIN, *TABLES])
)
neighbours = st.builds(NeighbourState, st.sampled_from(IPS), st.sampled_from(MACS))
rules = st.builds(
    lambda source, protocol, table: RuleState(2, source, protocol, None, None, table),
    st.none() | prefixes,
    st.none() | st.just(6),
    st.sampled_from(TABLES),
)


def one_per(items, key):
    return frozenset({key(item): item for item in items}.values())


def states(**fixed):
    values = {
        "mac": st.sampled_from(MACS),
        "mtu": st.sampled_from([1400, 1500]),
        "up": st.booleans(),
        "ipv6": st.booleans(),
        "addresses": st.lists(prefixes, unique=True).map(tuple),
        "narrower": st.just(frozenset()),
        "routes": st.lists(routes).map(lambda found: one_per(found, lambda item: (item.prefix, item.table))),
        "neighbours": st.lists(neighbours).map(lambda found: one_per(found, lambda item: item.ip)),
        "rules": st.frozensets(rules, max_size=3),
    } | fixed
    return st.builds(EndState, **values)


wishes = states(
    mac=st.sampled_from([b"", *MACS]),
    mtu=st.sampled_from([0, 1400]),
    up=st.just(True),  # noqa: FBT003 - a strategy for one value
)


def field_of(item):
    return {
        RouteState: "routes",
        NeighbourState: "neighbours",
        RuleState: "rules",
    }[type(item)]


def added(state, item):
    if isinstance(item, Prefix):
        return state._replace(addresses=(*state.addresses, item))
    return state._replace(**{field_of(item): getattr(state, field_of(item)) | {item}})


def removed(state, item):
    if isinstance(item, Prefix):
        return state._replace(addresses=tuple(other for other in state.addresses if other != item))
    return state._replace(**{field_of(item): getattr(state, field_of(item)) - {item}})


def perform(state, operation):
    """Do one operation as the plain contract of each says."""
    match operation:
        case Set(field, value):
            return state._replace(**{field: value})
        case Add(NeighbourState(ip, _) as item):
            others = frozenset(other for other in state.neighbours if other.ip != ip)
            return state._replace(neighbours=others | {item})
        case Add(item):
            return added(state, item)
        case Remove(item):
            return removed(state, item)
        case Promote():
            return state


def perform_as_kernel(state, operation):
    """Do the same, with the kernel's side effects.

    The last IPv4 address takes all IPv4 routes along; a removal without gateway hits one with gateway first.
    """
    match operation:
        case Remove(RouteState(prefix, b"", table)):
            hit = {r for r in state.routes if r.via and (r.prefix, r.table) == (prefix, table)}
            if hit:
                return state._replace(routes=state.routes - hit)
    after = perform(state, operation)
    removal = isinstance(operation, Remove) and isinstance(operation.item, Prefix)
    if removal and not any(len(address.address) == 4 for address in after.addresses):
        left = frozenset(route for route in after.routes if len(route.prefix.address) != 4)
        after = after._replace(routes=left)
    return after


def reached(desired, state):
    """Whether ``state`` is what was wished, where the wish says something."""
    wish = desired._replace(mac=desired.mac or state.mac, mtu=desired.mtu or state.mtu)
    return sorted_state(wish) == sorted_state(state._replace(narrower=frozenset()))


def sorted_state(state):
    """Forget the order of addresses: the kernel has one of its own."""
    return state._replace(addresses=tuple(sorted(state.addresses)))


@given(wishes, states())
def test_a_diff_that_is_applied_gives_what_was_desired(desired, existing):
    """For any wish and any state: the operations lead from one to the other, and then nothing is left."""
    state = existing
    for operation in diff(desired, existing):
        state = perform(state, operation)
    assert reached(desired, state)
    assert diff(desired, state) == []


@given(wishes, states())
def test_another_round_mends_what_the_kernel_drops(desired, existing):
    """With the kernel's side effects three rounds are enough, whatever the start."""
    state = existing
    for _ in range(3):
        for operation in diff(desired, state):
            state = perform_as_kernel(state, operation)
    assert reached(desired, state)


@given(wishes.flatmap(lambda wish: st.tuples(st.just(wish), states(routes=st.just(wish.routes)))))
def test_one_round_is_enough_when_routes_stay(both):
    """Exchanging anything but routes needs no second round, unless no IPv4 address is left."""
    desired, state = both
    if not any(len(address.address) == 4 for address in desired.addresses):
        return
    for operation in diff(desired, state):
        state = perform_as_kernel(state, operation)
    assert reached(desired, state)


@given(wishes, states())
def test_no_moment_without_an_address_when_addresses_are_exchanged(desired, existing):
    """Make before break: while there is an IPv4 address before and after, there is one all the time."""

    def has_ipv4(state):
        return any(len(address.address) == 4 for address in state.addresses)

    if not (has_ipv4(desired) and has_ipv4(existing)):
        return
    state = existing
    for operation in diff(desired, existing):
        state = perform(state, operation)
        assert has_ipv4(state)


@given(wishes, states())
def test_a_rule_never_leads_to_a_table_that_is_not_filled_yet(desired, existing):
    """Routes are added before the rules that lead to them, and rules are removed before their routes.

    But for routes without gateway that are exchanged: those are replaced within one message.
    """
    operations = diff(desired, existing)
    coming = {(route.prefix, route.table) for route in desired.routes - existing.routes}
    for verb, first, second in ((Add, RouteState, RuleState), (Remove, RuleState, RouteState)):
        kinds = [
            type(operation.item)
            for operation in operations
            if isinstance(operation, verb) and not exchanged(operation, coming)
        ]
        if first in kinds and second in kinds:
            assert max(i for i, kind in enumerate(kinds) if kind is first) < kinds.index(second)


def exchanged(operation, coming):
    match operation:
        case Remove(RouteState(prefix, b"", table)):
            return (prefix, table) in coming
    return False


def test_addresses_are_added_in_the_order_asked_for():
    """The first address becomes the kernel's preferred source."""
    order = tuple(Prefix(ip, 32) for ip in (IPS[2], IPS[0], IPS[1]))
    desired = EndState(addresses=order)
    assert [operation.item for operation in diff(desired, EndState())] == list(order)


@given(wishes)
def test_a_creation_is_a_diff_from_nothing(desired):
    """A new interface is marked, told what a comparison with an empty one finds, and set up in its course."""
    empty = EndState(mac=desired.mac, mtu=desired.mtu, up=desired.up, ipv6=desired.ipv6)
    sent = b"".join(data for data, _ in configuration(70000, desired, "nsm:x", ipv6=True).then.chunks())
    kinds_and_bodies = [(kind, sent[at:end]) for kind, _, _, at, end in frames(sent)]
    added = [message_of(operation, 70000) for operation in diff(desired, empty)]
    mark, up = rt.mark(70000, "nsm:x", no_link_local=True), rt.set_up(70000)
    assert kinds_and_bodies[0] == kind_and_body(mark)
    kinds_and_bodies.remove(kind_and_body(up))
    assert kinds_and_bodies[1:] == [kind_and_body(message) for message in added]


def kind_and_body(message):
    ((kind, _, _, at, end),) = frames(message)
    return kind, message[at:end]


def test_link_local_addresses_are_left_alone():
    """An address of narrower scope is neither removed nor added again."""
    local = Prefix(b"\xfe\x80" + bytes(13) + b"\1", 64)
    existing = EndState(narrower=frozenset({local}))
    assert diff(EndState(), existing) == []
    assert diff(EndState(addresses=(local,)), existing) == []


def test_a_kernel_without_ipv6_is_not_asked_to_switch_it():
    """ipv6 None is nobody's fault and nobody's work."""
    assert diff(EndState(ipv6=True), EndState(ipv6=None)) == []
