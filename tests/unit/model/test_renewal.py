"""What is sent when something is registered again."""

from __future__ import annotations

from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.model.renewal import renewal
from nsmesh.model.times import timestamp


def test_an_endpoint_keeps_its_url_and_drops_its_expiration():
    """All else is as answered; neither message is changed."""
    asked = NetworkServiceEndpoint(name="e", url="unix:///e", expiration_time=timestamp(1.0))
    answer = NetworkServiceEndpoint(
        name="e",
        url="tcp://manager",
        path_ids=["a"],
        expiration_time=timestamp(9.0),
        initial_registration_time=timestamp(2.0),
    )
    assert renewal(asked, answer) == NetworkServiceEndpoint(
        name="e", url="unix:///e", path_ids=["a"], initial_registration_time=timestamp(2.0)
    )
    assert answer.url == "tcp://manager"
    assert asked.HasField("expiration_time")


def test_a_service_is_sent_as_it_was_answered():
    """It has neither."""
    answer = NetworkService(name="s", payload="IP", path_ids=["a"])
    assert renewal(NetworkService(name="s"), answer) == answer
