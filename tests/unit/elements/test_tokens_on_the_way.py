"""UpdateToken and ClientToken: who speaks to whom, in segments and headers."""

import pytest

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, chain
from nsmesh.core.peering import DIALLED
from nsmesh.core.probes import Check
from nsmesh.core.tokens import (
    EXPIRES_HEADER,
    OUTGOING,
    TOKEN_HEADER,
    PlainTokens,
    received_token,
    token_headers,
)
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.update_token import UpdateToken
from nsmesh.model.messages import (
    Connection,
    MonitorScopeSelector,
    NetworkService,
    NetworkServiceQuery,
    NetworkServiceRequest,
    Path,
    PathSegment,
)
from nsmesh.model.times import seconds, timestamp


class Tokens:
    def mint(self, audience):
        return f"to {audience.spiffe_id or 'ourselves'}", 5000.0

    def fit(self, token, caller):
        return token

    def subject(self, token):
        return token.partition(">")[0]


class Stub:
    """What Dial reached, as far as ClientToken looks at it."""

    peer = Peer(spiffe_id="spiffe://x/next")


def connection():
    return Connection(
        id="b",
        path=Path(
            index=1,
            path_segments=[
                PathSegment(name="a", id="a", token="written by a", expires=timestamp(1000)),
                PathSegment(name="b", id="b"),
                PathSegment(name="c", id="c", token="of c", expires=timestamp(2000)),
            ],
        ),
    )


def tokens(message):
    return [(part.token, seconds(part.expires)) for part in message.path.path_segments]


def request_of(element, call):
    async def main():
        return await chain(element).request(call, NetworkServiceRequest(connection=connection()))

    return run(main())


CALLER = Peer(spiffe_id="spiffe://x/a")


def test_the_header_token_goes_into_the_callers_segment_and_ours_into_ours():
    """Other segments pass untouched."""
    call = Call(peer=CALLER, metadata=token_headers("from header", 3000))
    assert tokens(request_of(UpdateToken(Tokens()), call)) == [
        ("from header", 3000.0),
        ("to spiffe://x/a", 5000.0),
        ("of c", 2000.0),
    ]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        ((TOKEN_HEADER, "t"),),
        ((EXPIRES_HEADER, "2026-11-23T12:11:40Z"),),
        ((TOKEN_HEADER, "t"), (EXPIRES_HEADER, "soon")),
        (*token_headers("t", 1), (TOKEN_HEADER, "u")),
        (*token_headers("t", 1), (EXPIRES_HEADER, "2026-11-23T12:11:40Z")),
    ],
)
def test_headers_that_are_not_exactly_one_readable_pair_are_ignored(metadata):
    """The caller's segment stays as the caller wrote it."""
    answer = request_of(UpdateToken(Tokens()), Call(peer=CALLER, metadata=metadata))
    assert tokens(answer)[0] == ("written by a", 1000.0)
    assert tokens(answer)[1][0] == "to spiffe://x/a"


def test_close_updates_alike():
    """A Close works on the stored path with fresh tokens."""

    async def main():
        seen = []
        handler = chain(
            UpdateToken(Tokens()), Check("close", lambda call, message: seen.extend(tokens(message)))
        )
        await handler.close(Call(peer=CALLER, metadata=token_headers("h", 3000)), connection())
        assert seen[0] == ("h", 3000.0)

    run(main())


def test_a_path_of_one_segment_has_no_caller():
    """At index 0 there is nobody in front whose token could be kept."""

    async def main():
        request = NetworkServiceRequest(connection=connection())
        request.connection.path.index = 0
        answer = await chain(UpdateToken(Tokens())).request(
            Call(peer=CALLER, metadata=token_headers("h", 3000)), request
        )
        assert tokens(answer) == [("to spiffe://x/a", 5000.0), ("", 0.0), ("of c", 2000.0)]

    run(main())


def test_the_client_speaks_to_whoever_was_reached():
    """Our segment and the headers carry the same token, addressed to the peer behind the dial."""

    async def main():
        seen = []
        handler = chain(ClientToken(Tokens()), Check("request", lambda call, message: seen.append(call)))
        call = Call().put(DIALLED, Stub())
        answer = await handler.request(call, NetworkServiceRequest(connection=connection()))
        assert tokens(answer)[1] == ("to spiffe://x/next", 5000.0)
        assert tokens(answer)[0] == ("written by a", 1000.0)
        outgoing = seen[0].get(OUTGOING)
        assert received_token(Call(metadata=outgoing)) == ("to spiffe://x/next", 5000.0)

    run(main())


def test_a_role_of_this_process_gets_no_headers():
    """It reads our segment."""

    async def main():
        seen = []
        handler = chain(
            ClientToken(Tokens()), Check("close", lambda call, message: seen.append((call, message)))
        )
        await handler.close(Call().put(DIALLED, chain()), connection())
        call, message = seen[0]
        assert call.get(OUTGOING) is None
        assert tokens(message)[1] == ("to ourselves", 5000.0)

    run(main())


def test_every_verb_carries_the_headers():
    """Streams and registrations too."""
    seen = []

    class See(Element):
        async def register(self, call, entry, next):
            seen.append(call.get(OUTGOING))
            return entry

        async def unregister(self, call, entry, next):
            seen.append(call.get(OUTGOING))

        async def find(self, call, query, next):
            seen.append(call.get(OUTGOING))
            return
            yield

        async def monitor(self, call, selector, next):
            seen.append(call.get(OUTGOING))
            return
            yield

    async def main():
        handler = chain(ClientToken(Tokens()), See())
        call = Call().put(DIALLED, Stub())
        await handler.register(call, NetworkService())
        await handler.unregister(call, NetworkService())
        assert [item async for item in handler.find(call, NetworkServiceQuery())] == []
        assert [item async for item in handler.monitor(call, MonitorScopeSelector())] == []

    run(main())
    assert seen == [token_headers("to spiffe://x/next", 5000.0)] * 4


def test_plain_tokens_say_only_how_long():
    """Without identity a segment has an expiry and no token, and no headers are sent."""

    async def main():
        seen = []
        plain = PlainTokens(VirtualClock(), 60)
        handler = chain(ClientToken(plain), Check("request", lambda call, message: seen.append(call)))
        answer = await handler.request(
            Call().put(DIALLED, Stub()), NetworkServiceRequest(connection=connection())
        )
        assert tokens(answer)[1] == ("", EPOCH + 60)
        assert seen[0].get(OUTGOING) is None

    run(main())
