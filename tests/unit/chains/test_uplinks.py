"""Which VLANs a forwarder has, by its device selector files."""

from __future__ import annotations

import pytest

from nsmesh.chains import tunnels, uplinks
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid

FILE = "interfaces: [{name: %s, matches: [{labelSelector: [{via: %s}]}]}]"


@pytest.fixture
def kernel(monkeypatch):
    missing = {}
    monkeypatch.setattr(uplinks, "lacks", lambda kind: missing.get(kind, ""))
    return missing


def write(folder, name, interface, via):
    path = folder / name
    path.write_text(FILE % (interface, via))
    return str(path)


def test_both_files_count(tmp_path, kernel):
    """That of NSM's forwarder with VPP and that of the one with Open vSwitch; VLAN is offered last."""
    settings = ForwarderSettings(
        device_selector_file=write(tmp_path, "a", "eth1", "gw-1"),
        l2_resource_selector_file=write(tmp_path, "b", "eth2", "gw-2"),
    )
    assert uplinks.uplinks_of(settings) == {"gw-1": "eth1", "gw-2": "eth2"}
    assert [plugin.type for plugin in tunnels.mechanisms_of(settings)] == ["KERNEL", "VLAN", "MEMIF"]
    assert tunnels.lacking(settings) == {}


def test_without_files_there_are_none(kernel):
    """Nor is anything said to be lacking."""
    kernel["VLAN"] = "no bridges"
    assert uplinks.vlans(ForwarderSettings()) == []
    assert tunnels.lacking(ForwarderSettings()) == {}


def test_what_the_kernel_lacks_is_told(tmp_path, kernel):
    """In the label of the registration; the forwarder starts all the same."""
    kernel["VLAN"] = "this kernel has no bridges"
    settings = ForwarderSettings(device_selector_file=write(tmp_path, "a", "eth1", "gw-1"))
    assert [plugin.type for plugin in tunnels.mechanisms_of(settings)] == ["KERNEL", "MEMIF"]
    assert tunnels.lacking(settings) == {"VLAN": "this kernel has no bridges"}


@pytest.mark.parametrize("text", [": no", "interfaces: none", "\x00", ""])
def test_a_file_that_is_none_ends_the_start(tmp_path, text):
    """With its name and the form that it should have."""
    path = tmp_path / "selector.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"selector\.yaml cannot be used"):
        uplinks.uplinks_of(ForwarderSettings(device_selector_file=str(path)))
    with pytest.raises(Invalid, match="No such file"):
        uplinks.uplinks_of(ForwarderSettings(device_selector_file=f"{path}.not"))
