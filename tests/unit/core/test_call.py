"""Calls: frozen, typed, with a deadline."""

import asyncio
import dataclasses

import pytest

from nsmesh.core.call import Call, Key, Peer, State
from nsmesh.core.errors import TimedOut
from nsmesh.core.virtual import run

NUMBER: Key[int] = Key("number")
OTHER: Key[int] = Key("number")


def test_values_belong_to_the_copy():
    """``put`` changes a copy; two keys of one name are two keys."""
    call = Call()
    more = call.put(NUMBER, 1)
    assert call.get(NUMBER) is None
    assert more.get(NUMBER) == 1
    assert more.get(OTHER) is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.deadline = 1.0


def test_state_is_shared_by_all_copies_of_one_call():
    """The state and the reply are the connection's and the call's, not the copy's."""
    call = Call(state=State())
    copy = call.put(NUMBER, 1)
    call.state.set(NUMBER, 2)
    call.reply["a"] = "b"
    assert copy.state.get(NUMBER) == 2
    assert copy.reply == {"a": "b"}
    assert copy.state.pop(NUMBER) == 2
    assert call.state.pop(NUMBER) is None


def test_deadlines_only_come_nearer():
    """``within`` never extends; ``remaining`` counts down and raises at the end."""

    async def main():
        assert Call().remaining() is None
        call = Call().within(10)
        assert call.within(20).deadline == call.deadline
        assert call.within(5).remaining() == 5
        await asyncio.sleep(4)
        assert call.remaining() == 6
        await asyncio.sleep(6)
        with pytest.raises(TimedOut):
            call.remaining()

    run(main())


def test_fresh_keeps_the_peer_alone():
    """Work that outlives a call has its peer, and neither its deadline, nor values, nor state."""
    call = Call(1.0, Peer(uid=7), (("a", "b"),), {"c": "d"}).put(NUMBER, 1)
    call.state.set(NUMBER, 1)
    fresh = call.fresh()
    assert fresh.peer == Peer(uid=7)
    assert (fresh.deadline, fresh.metadata, fresh.reply, dict(fresh.values)) == (None, (), {}, {})
    assert fresh.state.get(NUMBER) is None


def test_headers_come_in_order_with_repeats():
    """All values of a key, and no others."""
    call = Call(metadata=(("a", "1"), ("b", "2"), ("a", "3")))
    assert call.header("a") == ["1", "3"]
    assert call.header("c") == []
