"""Tokens in events go to those who stand in the path."""

from __future__ import annotations

import pytest

from nsmesh.core.call import Peer
from nsmesh.model.messages import Connection, ConnectionEvent, Path, PathSegment
from nsmesh.security import jws
from nsmesh.security.privacy import visible_to
from nsmesh.security.token import TokenReader


@pytest.fixture
def event(shop):
    key = shop.new_key()

    def connection(*subjects):
        segments = [
            PathSegment(name=one, id=one, token=jws.sign({}, {"sub": f"spiffe://td/{one}"}, key))
            for one in subjects
        ]
        return Connection(id="x", path=Path(index=1, path_segments=segments))

    return ConnectionEvent(connections={"a": connection("nsc", "nsmgr"), "b": connection("other", "nsmgr")})


def tokens(event, key):
    return [bool(segment.token) for segment in event.connections[key].path.path_segments]


def test_a_stranger_sees_paths_without_tokens(event):
    """Names, ids and state stay, so that a topology can be drawn; the original is not touched."""
    before = event.SerializeToString(deterministic=True)
    for peer in (Peer(spiffe_id="spiffe://td/spy"), Peer(uid=0)):
        seen = visible_to(event, peer, TokenReader())
        assert tokens(seen, "a") == tokens(seen, "b") == [False, False]
        assert [one.name for one in seen.connections["a"].path.path_segments] == ["nsc", "nsmgr"]
    assert event.SerializeToString(deterministic=True) == before


def test_an_owner_sees_the_tokens_of_its_own_paths(event):
    """A client can restore its connection from an event, and learns nothing of others'."""
    seen = visible_to(event, Peer(spiffe_id="spiffe://td/nsc"), TokenReader())
    assert (tokens(seen, "a"), tokens(seen, "b")) == ([True, True], [False, False])


def test_whoever_stands_in_all_paths_sees_all(event):
    """A manager, and every role of this process, gets the event as it is."""
    assert visible_to(event, Peer(spiffe_id="spiffe://td/nsmgr"), TokenReader()) is event
    assert visible_to(event, Peer(in_process=True), TokenReader()) is event


def test_a_token_that_cannot_be_read_proves_nothing(event):
    """Garbage in a path makes nobody its owner."""
    event.connections["a"].path.path_segments[0].token = "garbage"
    seen = visible_to(event, Peer(spiffe_id="spiffe://td/nsc"), TokenReader())
    assert tokens(seen, "a") == [False, False]
