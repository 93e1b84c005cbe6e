"""What arrivals say of a stream."""

from hypothesis import given
from hypothesis import strategies as st

from nsmesh.chaos.packets import RECORD, records, tally


@given(st.sets(st.integers(0, 99)), st.lists(st.integers(0, 99), max_size=5))
def test_every_lost_and_every_double_packet_is_counted(lost, twice):
    """Whatever is left out is lost, and what comes again is a duplicate, in whatever order."""
    came = [number for number in range(100) if number not in lost]
    again = [number for number in twice if number not in lost]
    found = tally(100, [(number, 1000 - at) for at, number in enumerate(came + again)], {})
    assert (found.lost, found.duplicates) == (len(lost), len(again))


def test_the_senders_own_pause_is_no_silence_of_the_wire():
    """Ten units between arrivals, seven of which the sender was late, are a silence of three."""
    found = tally(3, [(0, 100), (1, 110), (2, 114)], {1: 7})
    assert (found.gap, found.gap_end) == (4, 114)


def test_a_late_sender_does_not_hide_what_is_lost():
    """A sender that comes late to every packet of a silence: it lasts from the first that was lost."""
    came = [(0, 100), (1, 110), (9, 190)]
    assert tally(10, came, dict.fromkeys(range(2, 10), 8)).gap == 72


def test_half_a_record_is_left_out():
    """A file that was cut off gives what is whole."""
    assert records(RECORD.pack(1, 2) + b"\0" * 5) == [(1, 2)]
