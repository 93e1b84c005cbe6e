"""Following a neighbour: what counts as up, down, and nothing."""

import asyncio

import pytest

from nsmesh.core.call import Peer
from nsmesh.core.errors import Remote, Status, Unavailable, Unimplemented
from nsmesh.core.follow import REMEMBERED, Follower, Ours
from nsmesh.core.scope import Scope
from nsmesh.core.tokens import OUTGOING, token_headers
from nsmesh.core.virtual import VirtualClock, run
from nsmesh.model.messages import Connection, ConnectionEvent, ConnectionEventType, Path, PathSegment, State

UPDATE, DELETE = ConnectionEventType.UPDATE, ConnectionEventType.DELETE


class Neighbour:
    """A monitor that says what the test puts into it."""

    def __init__(self):
        self.selectors = []
        self.queue = asyncio.Queue()
        self.open = 0

    async def monitor(self, call, selector):
        self.selectors.append(selector)
        self.open += 1
        try:
            while True:
                item = await self.queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    return
                yield item
        finally:
            self.open -= 1

    def say(self, kind, name="x", state=State.UP, index=1, who="me", further=()):
        path = Path(
            index=index,
            path_segments=[
                PathSegment(name=who, id=name),
                PathSegment(name="far", id=f"far-{name}"),
                *(PathSegment(name=one, id=one) for one in further),
            ],
        )
        connection = Connection(id=f"far-{name}", path=path, state=state)
        self.queue.put_nowait(ConnectionEvent(type=kind, connections={connection.id: connection}))


def scenario(body):
    async def main():
        async with Scope("s", VirtualClock()) as scope:
            await body(Follower(lambda: scope), Neighbour())
        assert scope.tasks == 0

    run(main())


async def settle():
    await asyncio.sleep(0.01)


class Names:
    """Tokens that say to whom they are addressed."""

    def mint(self, audience):
        return f"to {audience.spiffe_id}", 100.0


def test_a_remote_neighbour_is_told_who_follows():
    """The stream has the headers of a token for the neighbour; that to a role of this process has none."""

    class Remembers(Neighbour):
        def __init__(self, peer):
            super().__init__()
            self.peer = peer
            self.headers = ()

        def monitor(self, call, selector):
            self.headers = call.get(OUTGOING) or ()
            return super().monitor(call, selector)

    async def main():
        far, near = Remembers(Peer(spiffe_id="spiffe://td/far")), Remembers(Peer(in_process=True))
        async with Scope("s", VirtualClock()) as scope:
            follower = Follower(lambda: scope, Names())
            for neighbour in (far, near):
                follower.follow(neighbour, Ours("me", "a", 0), 0, print)
            await settle()
        assert far.headers == token_headers("to spiffe://td/far", 100.0)
        assert near.headers == ()

    run(main())


def test_one_stream_per_neighbour():
    """It asks for all that bear our name, and ends with the last connection."""

    async def body(follower, neighbour):
        both = [
            follower.follow(neighbour, Ours("me", name, 0), 0.0, lambda state: None) for name in ("x", "y")
        ]
        await settle()
        assert neighbour.open == 1
        [selector] = neighbour.selectors
        assert [(part.name, part.id) for part in selector.path_segments] == [("me", "")]
        both[0].stop()
        both[0].stop()
        await settle()
        assert neighbour.open == 1
        both[1].stop()
        await settle()
        assert (neighbour.open, follower.streams) == (0, 0)

    scenario(body)


def test_events_are_told_to_whom_they_concern():
    """States as they are, DELETE as DOWN; other connections, names and indexes are nobody's."""

    async def body(follower, neighbour):
        told = []
        following = follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append)
        neighbour.say(UPDATE)
        neighbour.say(UPDATE, state=State.DOWN)
        neighbour.say(UPDATE, state=State.REFRESH_REQUESTED, index=0)
        neighbour.say(UPDATE, "y", State.DOWN)
        neighbour.say(UPDATE, state=State.DOWN, index=2)
        neighbour.say(UPDATE, state=State.DOWN, who="other")
        neighbour.say(DELETE)
        neighbour.queue.put_nowait(ConnectionEvent(type=DELETE, connections={"z": Connection(id="z")}))
        await settle()
        assert told == [State.UP, State.DOWN, State.REFRESH_REQUESTED, State.DOWN]
        following.stop()

    scenario(body)


@pytest.mark.parametrize("end", [None, Unavailable("gone"), ValueError("odd"), Remote(Status.UNKNOWN, "x")])
def test_a_stream_that_ends_means_down_for_all(end):
    """A regular end is one too; the next to follow opens a new stream."""

    async def body(follower, neighbour):
        told = []
        following = follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append)
        follower.follow(neighbour, Ours("me", "y", 0), 0.0, told.append)
        neighbour.queue.put_nowait(end)
        await settle()
        assert told == [State.DOWN, State.DOWN]
        assert not following.live
        assert follower.streams == 0
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append)
        await settle()
        assert neighbour.open == 1

    scenario(body)


@pytest.mark.parametrize("end", [Remote(Status.CANCELLED, "x"), Unimplemented("no monitor")])
def test_some_ends_mean_nothing(end):
    """CANCELLED is no loss, and a neighbour without a monitor is no reason to heal for ever."""

    async def body(follower, neighbour):
        told = []
        following = follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append)
        neighbour.queue.put_nowait(end)
        await settle()
        assert told == []
        assert not following.live

    scenario(body)


def test_a_loss_between_answer_and_following_is_told():
    """What went down just before it was followed is told after a grace, unless it came up again or is old."""

    async def body(follower, neighbour):
        told = []
        follower.follow(neighbour, Ours("me", "other", 0), 0.0, lambda state: None)
        neighbour.say(UPDATE, "x", State.DOWN)
        neighbour.say(DELETE, "y")
        await settle()
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, lambda state: told.append(("x", state)))
        follower.follow(neighbour, Ours("me", "y", 0), 0.0, lambda state: told.append(("y", state)))
        neighbour.say(UPDATE, "y")
        await asyncio.sleep(1)
        assert told == [("y", State.UP), ("x", State.DOWN)]
        neighbour.say(DELETE, "z")
        await settle()
        now = asyncio.get_running_loop().time()
        follower.follow(neighbour, Ours("me", "z", 0), now, lambda state: told.append(("z", state)))
        await asyncio.sleep(1)
        assert len(told) == 2

    scenario(body)


def test_losses_of_others_are_remembered_in_bounds():
    """A neighbour of which we follow one connection cannot fill the memory with others."""

    async def body(follower, neighbour):
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, lambda state: None)
        for number in range(REMEMBERED + 100):
            neighbour.say(DELETE, str(number))
        await settle()
        [stream] = follower._streams.values()
        assert len(stream.heard) == REMEMBERED

    scenario(body)


def test_what_was_before_a_reselect_is_not_told_of_what_came_after():
    """Until what was chosen anew is heard to be up, the end of another way is the earlier life's."""
    new = ("far-x", "nse2")

    async def body(follower, neighbour):
        told = []
        follower.follow(neighbour, Ours("me", "other", 0), 0.0, lambda state: None)
        neighbour.say(DELETE, "x", further=("nse1",))
        await settle()
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append, anew=new)
        await asyncio.sleep(1)
        neighbour.say(UPDATE, "x", State.DOWN, further=("nse1",))
        neighbour.say(DELETE, "x", further=("nse1",))
        await settle()
        assert told == []
        neighbour.say(UPDATE, "x", further=("nse2",))
        neighbour.say(UPDATE, "x", State.DOWN, further=("nse3",))
        await settle()
        assert told == [State.UP, State.DOWN]

    scenario(body)


@pytest.mark.parametrize("kind", [UPDATE, DELETE])
@pytest.mark.parametrize("early", [False, True])
def test_the_loss_of_what_was_chosen_anew_is_told(kind, early):
    """Also where it is all that is heard of it, before it is followed or after."""

    async def body(follower, neighbour):
        told = []
        follower.follow(neighbour, Ours("me", "other", 0), 0.0, lambda state: None)
        await settle()
        if early:
            neighbour.say(kind, "x", State.DOWN, further=("nse2",))
            await settle()
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append, anew=("far-x", "nse2"))
        if not early:
            neighbour.say(kind, "x", State.DOWN, further=("nse2",))
        await asyncio.sleep(1)
        assert told == [State.DOWN]

    scenario(body)


def test_what_was_heard_to_be_up_is_followed_as_any_other():
    """The neighbour spoke of the new way before it was followed: whatever it says now is of it."""

    async def body(follower, neighbour):
        told = []
        follower.follow(neighbour, Ours("me", "other", 0), 0.0, lambda state: None)
        neighbour.say(UPDATE, "x", further=("nse2",))
        await settle()
        follower.follow(neighbour, Ours("me", "x", 0), 0.0, told.append, anew=("far-x", "nse2"))
        neighbour.say(DELETE, "x", further=("nse3",))
        await settle()
        assert told == [State.DOWN]

    scenario(body)
