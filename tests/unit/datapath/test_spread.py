"""Which switch takes the next wire of interfaces, when another one is wanted, who has ports in advance."""

from types import SimpleNamespace

from nsmesh.datapath.ovs_spread import RESERVE, WIRES, Spread


class Switch(SimpleNamespace):
    """Something with ports in advance, as good as another of its kind only if it is the very same."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def switches(count):
    return [Switch(spares=SimpleNamespace(limit=-1)) for _ in range(count)]


def test_the_first_with_room_is_chosen_and_else_the_emptiest():
    """A switch that is coming is not: nobody waits for it."""
    first, second, coming = switches(3)
    spread = Spread(first)
    assert spread.choose({first: WIRES + 5}) is first
    spread.ready.append(second)
    spread.coming.add(coming)
    assert spread.choose({first: WIRES - 1, second: 0}) is first
    assert spread.choose({first: WIRES, second: 3}) is second
    assert spread.choose({first: WIRES + 2, second: WIRES + 1}) is second


def test_another_one_is_wanted_before_the_room_ends():
    """What is coming counts; one that shall end does not."""
    first, second = switches(2)
    spread = Spread(first)
    assert not spread.is_short({first: WIRES - RESERVE})
    assert spread.is_short({first: WIRES - RESERVE + 1})
    spread.coming.add(second)
    assert not spread.is_short({first: WIRES - RESERVE + 1})
    assert spread.is_short({first: WIRES - RESERVE + 1}, second)
    assert not spread.is_short({first: WIRES - RESERVE}, second)


def test_ports_in_advance_are_limited_only_where_another_switch_takes_the_rest():
    """And there are none at a switch that is there for memif alone."""
    first, second, memif = switches(3)
    spread = Spread(first)
    spread.limit([first, memif], {first: WIRES})
    assert (first.spares.limit, memif.spares.limit) == (None, 0)
    spread.coming.add(second)
    spread.limit([first, second, memif], {first: WIRES})
    assert (first.spares.limit, second.spares.limit) == (None, WIRES)
    spread.coming.discard(second)
    spread.ready.append(second)
    spread.limit([first, second, memif], {first: WIRES})
    assert (first.spares.limit, second.spares.limit, memif.spares.limit) == (WIRES, None, 0)
    spread.limit([first, second, memif], {first: WIRES, second: WIRES})
    assert (first.spares.limit, second.spares.limit) == (None, None)
    spread.drop(second)
    assert spread.ready == [first]
