"""UpdatePath: in both halves of a process, on Request and Close."""

import itertools

import pytest

from nsmesh.core.begin import Begin
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid
from nsmesh.core.probes import Check
from nsmesh.core.virtual import run
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, NetworkServiceRequest, Path, PathSegment


def ids(prefix):
    numbers = itertools.count()
    return lambda: f"{prefix}-{next(numbers)}"


def test_both_halves_share_one_segment():
    """The second half of a process leaves the path alone, and the caller gets its own id and index back."""

    async def main():
        seen = []
        handler = chain(
            UpdatePath("nsc", ids("nsc")),
            UpdatePath("mgr", ids("mgr")),
            UpdatePath("mgr", ids("second")),
            Check(
                "request",
                lambda call, request: seen.append((request.connection.id, request.connection.path.index)),
            ),
            Check("close", lambda call, connection: seen.append((connection.id, connection.path.index))),
        )
        answer = await handler.request(Call(), NetworkServiceRequest(connection=Connection(id="a")))
        assert (answer.id, answer.path.index) == ("a", 0)
        assert [(part.name, part.id) for part in answer.path.path_segments] == [
            ("nsc", "a"),
            ("mgr", "mgr-0"),
        ]
        await handler.close(Call(), answer)
        assert seen == [("mgr-0", 1), ("mgr-0", 1)]

    run(main())


def test_errors_carry_the_texts_of_the_field_and_a_remedy():
    """A bent path is Invalid, on Request and on Close."""

    async def main():
        handler = chain(UpdatePath("mgr"))
        bent = Connection(id="other")
        bent.path.path_segments.append(PathSegment(name="probe", id="a"))
        with pytest.raises(
            Invalid, match=r"Current PathSegment.Id==a should be equal Connection.Id==other - send"
        ):
            await handler.request(Call(), NetworkServiceRequest(connection=bent))
        with pytest.raises(Invalid):
            await handler.close(Call(), bent)

    run(main())


def test_a_bent_answer_is_refused():
    """An answer that dropped the segments in front cannot be handed back."""

    class Cut(Element):
        async def request(self, call, request, next):
            del request.connection.path.path_segments[:1]
            return request.connection

    async def main():
        request = NetworkServiceRequest(connection=Connection(id="a"))
        request.connection.path.path_segments.append(PathSegment(name="nsc", id="a"))
        with pytest.raises(Invalid, match="bent path"):
            await chain(UpdatePath("mgr"), Cut()).request(Call(), request)

    run(main())


def through(name, hop, *, own="nse-0", client="nsc"):
    """Return a Request as forwarder ``name`` sends it under the id ``hop``."""
    names = ((client, f"{client}-0"), ("mgr", "mgr-0"), (name, hop))
    segments = [PathSegment(name=one, id=key) for one, key in names]
    if own:
        segments.append(PathSegment(name="nse", id=own))
    path = Path(index=2, path_segments=segments)
    return NetworkServiceRequest(connection=Connection(id=hop, path=path))


def asked(*steps):
    """Return under which id the endpoint serves each step: who calls, in which process, and the message."""

    async def main():
        begin, seen = Begin(), []
        handler = chain(
            UpdatePath("nse", ids("nse"), begin=begin),
            begin,
            Check("request", lambda call, request: seen.append(request.connection.id)),
        )
        for peer, request in steps:
            answer = await handler.request(Call(peer=peer), request)
            assert answer.id == request.connection.path.path_segments[2].id == answer.path.path_segments[2].id
            assert answer.path.path_segments[3].id == seen[-1]
        assert len(begin.connections) == len(set(seen))
        return seen

    return run(main())


OLD, NEW = Peer(spiffe_id="spiffe://d/old"), Peer(spiffe_id="spiffe://d/new")


def test_who_takes_another_hops_place_gets_a_connection_of_its_own():
    """A forwarder that was started anew, as somebody else: what its predecessor had stays what it was."""
    assert asked(
        (OLD, through("fwd-1", "f-1", own="")),
        (NEW, through("fwd-2", "f-2")),
        (NEW, through("fwd-2", "f-2", own="nse-1")),
        (OLD, through("fwd-1", "f-1")),
    ) == ["nse-0", "nse-1", "nse-1", "nse-0"]


def test_the_same_identity_goes_on_with_what_it_had():
    """Under whichever name and id: all forwarders of a mesh may share one."""
    assert (
        asked(
            (OLD, through("fwd-1", "f-1", own="")),
            (OLD, through("fwd-2", "f-2")),
            (Peer(in_process=True), through("fwd-3", "f-3")),
        )
        == ["nse-0"] * 3
    )


def test_whoever_repeats_anothers_path_gets_nothing_of_its_own():
    """The id stays what it is, and the policies behind see whose it is."""
    assert asked((OLD, through("fwd-1", "f-1", own="")), (NEW, through("fwd-1", "f-1"))) == ["nse-0"] * 2
