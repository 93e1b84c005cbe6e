"""UpdatePath: in both halves of a process, on Request and Close."""

import itertools

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import Element, chain
from nsmesh.core.errors import Invalid
from nsmesh.core.probes import Check
from nsmesh.core.virtual import run
from nsmesh.elements.update_path import UpdatePath
from nsmesh.model.messages import Connection, NetworkServiceRequest, PathSegment


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
