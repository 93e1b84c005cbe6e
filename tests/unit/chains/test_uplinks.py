"""Which VLANs a forwarder has, by its device selector files."""

from __future__ import annotations

import re

import pytest

from nsmesh.chains import tunnels, uplinks
from nsmesh.chains.settings import ForwarderSettings
from nsmesh.core.errors import Invalid, Unavailable
from nsmesh.model.messages import Connection, Mechanism
from nsmesh.model.tunnels import BridgePort
from nsmesh.model.vlan import Interface
from nsmesh.model.wiring import Side

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
    assert uplinks.uplinks_of(settings) == {"gw-1": Interface("eth1"), "gw-2": Interface("eth2")}
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


def with_bridges(folder):
    """Return the settings of a forwarder with an interface for gw-1, and a bridge for gw-2."""
    path = folder / "selector.yaml"
    bridges = (FILE % ("br-ext", "gw-2")).replace("interfaces", "bridges")
    path.write_text(f"{FILE % ('lo', 'gw-1')}\n{bridges}")
    return ForwarderSettings(l2_resource_selector_file=str(path))


def port(plugin, via):
    wanted = Mechanism(cls="REMOTE", type="VLAN", parameters={"vlan-id": "100"})
    return plugin.port(Connection(labels={"via": via}), wanted, Side.ENDPOINT)


def test_bridges_are_not_passed_over_in_silence(tmp_path, kernel, capfd):
    """Where nobody serves them: the log says who does, and so does the refusal; interfaces are served."""
    (plugin,) = uplinks.vlans(with_bridges(tmp_path))
    assert re.search("served by forwarder-ovs with NSM_SWITCH_DATABASE.*br-ext", "".join(capfd.readouterr()))
    assert port(plugin, "gw-1").interface == "lo"
    with pytest.raises(Invalid, match="VLAN 100 via gw-2 is behind the bridge br-ext") as told:
        port(plugin, "gw-2")
    assert "NSM_SWITCH_DATABASE" in told.value.remedy
    assert uplinks.driver_of(with_bridges(tmp_path), owner="x", namespaces=tuple).name == "linux"


def test_a_kernel_that_cannot_still_leads_to_bridges(tmp_path, kernel, capfd):
    """A bridge of Open vSwitch needs nothing of it; what it lacks is said where an interface is asked for."""
    kernel["VLAN"] = "this kernel has no bridges"
    (plugin,) = uplinks.vlans(
        with_bridges(tmp_path), lambda via, name: lambda vlan: BridgePort(name, vlan, 1500, via=via)
    )
    assert port(plugin, "gw-2") == BridgePort("br-ext", 100, 1500)
    with pytest.raises(Unavailable, match=r"via gw-1 .*this kernel has no bridges"):
        port(plugin, "gw-1")
    assert tunnels.lacking(with_bridges(tmp_path)) == {"VLAN": "this kernel has no bridges"}
    assert "NSM_SWITCH_DATABASE" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("text", [": no", "interfaces: none", "\x00", ""])
def test_a_file_that_is_none_ends_the_start(tmp_path, text):
    """With its name and the form that it should have."""
    path = tmp_path / "selector.yaml"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"selector\.yaml cannot be used"):
        uplinks.uplinks_of(ForwarderSettings(device_selector_file=str(path)))
    with pytest.raises(Invalid, match="No such file"):
        uplinks.uplinks_of(ForwarderSettings(device_selector_file=f"{path}.not"))
