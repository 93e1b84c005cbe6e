"""Mechanisms as plug-ins, and NOOP."""

from __future__ import annotations

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.core.mechanism import by_type, note_interface
from nsmesh.mechanisms import available, load
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.mechanisms.noop import Noop
from nsmesh.model.messages import Connection, Mechanism, Path, PathSegment
from nsmesh.model.wiring import Side


def test_the_shipped_mechanisms_are_installed():
    """KERNEL and NOOP come with the package, by entry point."""
    assert {"KERNEL", "NOOP"} <= set(available())
    assert load("KERNEL") is Kernel
    assert load("NOOP") is Noop


def test_an_unknown_mechanism_is_answered_with_the_nearest():
    """The error says what there is, and what was probably meant."""
    with pytest.raises(Invalid) as caught:
        load("KERNAL")
    assert "KERNEL" in str(caught.value)
    assert caught.value.remedy == "did you mean KERNEL?"


def test_plugins_by_type_keep_their_order():
    """The order of preference is the order given."""
    assert list(by_type([Noop(), Kernel()])) == ["NOOP", "KERNEL"]


def test_noop_has_no_interface():
    """NOOP takes what it is offered and ends in nothing."""
    noop, made = Noop(), Connection()
    offered = noop.offer(made)
    assert offered == Mechanism(cls="LOCAL", type="NOOP")
    assert noop.accept(offered, made) == offered
    assert noop.port(made, offered, Side.CLIENT) is None
    assert noop.describe(offered) == "NOOP"


def test_a_metric_goes_into_the_own_segment():
    """The path's index says which segment; a path without it is left alone."""
    made = Connection(path=Path(index=1, path_segments=[PathSegment(name="a"), PathSegment(name="b")]))
    note_interface(made, "server_interface", "KERNEL/nsm-1")
    assert dict(made.path.path_segments[1].metrics) == {"server_interface": "KERNEL/nsm-1"}
    assert not made.path.path_segments[0].metrics
    empty = Connection()
    note_interface(empty, "server_interface", "KERNEL/nsm-1")
    assert empty == Connection()
