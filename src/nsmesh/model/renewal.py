"""What a registrant sends when it registers again."""

from __future__ import annotations

from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkServiceEndpoint


def renewal(asked: Entry, answer: Entry) -> Entry:
    """Return the entry to send after ``asked`` was answered with ``answer``.

    It is the answer, so that the first registration time stays, but with the URL that was asked for and
    without an expiration time: a registry only ever lowers one that it is given.
    """
    again = copy_of(answer)
    if isinstance(again, NetworkServiceEndpoint) and isinstance(asked, NetworkServiceEndpoint):
        again.url = asked.url
        again.ClearField("expiration_time")
    return again
