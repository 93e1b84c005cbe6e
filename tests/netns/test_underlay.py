"""The underlay of a node: its link, its MTU, and what the kernel can do."""

import shutil
import threading
from pathlib import Path

import datapath_lab as lab
import pytest
import vxlan_lab

from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.datapath import abilities, trial
from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.links import silence
from nsmesh.datapath.underlay import Underlay

pytestmark = pytest.mark.root


@pytest.mark.parametrize("family", [4, 6])
def test_the_mtu_is_that_of_the_link_with_the_address(family):
    """It is read again after a second at the latest."""
    with vxlan_lab.nodes(9000, family) as found:
        under = Underlay(vxlan_lab.UNDERLAY[family][0], node=found.a)
        assert under.mtu() == 9000
        lab.run(found.a, "ip", "link", "set", "under", "mtu", "1500")
        assert under.mtu() == 9000
        under._until = 0.0
        assert under.mtu() == 1500


def test_what_is_wrong_with_the_underlay_is_told():
    """An address that is on no link, and a link that is down; both end by themselves."""
    with vxlan_lab.nodes() as found:
        with pytest.raises(Unavailable, match=r"192.0.2.9 is on no link of this node"):
            Underlay("192.0.2.9", node=found.a).mtu()
        under = Underlay("192.0.2.1", node=found.a)
        lab.run(found.a, "ip", "link", "set", "under", "down")
        with pytest.raises(Unavailable, match=r"the link of the tunnel address 192.0.2.1 is down"):
            under.mtu()
        lab.run(found.a, "ip", "link", "set", "under", "up")
        assert under.mtu() == 1500
    with pytest.raises(Invalid):
        Underlay("node-1")


def test_what_the_kernel_can_is_tried_where_nobody_sees():
    """Our own namespace gets no device, and the thread that tried is gone."""
    own, threads = Path("/proc/thread-self/net/dev"), threading.active_count()
    before = own.read_text().count(":")
    assert lacks("VXLAN") == ""
    assert own.read_text().count(":") == before
    assert threading.active_count() == threads


def test_what_the_kernel_cannot_is_said(monkeypatch):
    """A refusal is the reason, in words; of WireGuard both the kernel and the program are missing."""
    monkeypatch.setitem(abilities._PROBES, "VXLAN", (("sparks", lambda: trial.new_link("sparks")),))
    assert lacks("VXLAN") == "this kernel has no sparks"
    monkeypatch.setitem(abilities._PROBES, "WIREGUARD", (("sparks", lambda: trial.new_link("sparks")),))
    assert lacks("WIREGUARD") == ("" if shutil.which("wireguard-go") else lacks("WIREGUARD"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert lacks("WIREGUARD") == "this kernel has no sparks, and the program wireguard-go is not here"


def test_a_silent_namespace_answers_nothing():
    """All its links are down; one that is gone is silent already."""
    with lab.spaces(1) as (space,):
        assert lab.pings(space, "127.0.0.1")
        silence(space)
        assert not lab.pings(space, "127.0.0.1")
    silence(space)
