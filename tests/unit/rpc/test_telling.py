"""What the log hears of misbehaving peers: all of it within bounds, the rest counted."""

from structlog.testing import capture_logs

from nsmesh.core.call import Peer
from nsmesh.rpc import telling
from nsmesh.rpc.telling import Telling, name_of


def test_nobody_fills_the_log(monkeypatch):
    """Each kind of trouble of each peer has its lines; what was left out is told with the next window."""
    now = 100.0
    monkeypatch.setattr(telling.time, "monotonic", lambda: now)
    tell = Telling(lines=2, window=5.0)
    with capture_logs() as lines:
        for _ in range(10):
            tell.warn("floods", about="a", reason="r")
        tell.warn("floods", about="b")
        tell.warn("lies", about="a")
        assert len(lines) == 4
        now = 105.0
        tell.warn("floods", about="a")
    assert lines[-1]["unsaid_before"] == 8
    assert lines[0] == {"event": "floods", "log_level": "warning", "reason": "r"}


def test_what_is_remembered_is_bounded(monkeypatch):
    """Many peers cost a bounded memory."""
    monkeypatch.setattr(telling, "PEERS", 3)
    tell = Telling()
    with capture_logs() as lines:
        for number in range(10):
            tell.warn("x", about=str(number))
    assert len(lines) == 10
    assert len(tell._buckets) == 3


def test_a_peer_is_known_by_what_it_cannot_change():
    """Its SPIFFE ID, else its user; connections, processes and ports come and go."""
    assert name_of(Peer(spiffe_id="spiffe://a/b", uid=3, pid=4)) == "spiffe://a/b"
    assert name_of(Peer(uid=3, pid=4)) == "user 3"
    assert name_of(Peer()) == ""
