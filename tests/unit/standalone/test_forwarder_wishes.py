"""What ``nsm up`` is told of forwarders is kept in a file, as it was told."""

import pytest

from nsmesh.core.errors import Invalid, NotFound
from nsmesh.standalone.forwarder_wishes import ForwarderWishes


def test_what_is_kept_is_what_was_told(tmp_path):
    """All kinds of values come back equal; a later option changes its own, and an empty one takes it back."""
    path = tmp_path / "forwarders.json"
    assert ForwarderWishes.load(path) == ForwarderWishes()
    wishes = ForwarderWishes(
        ("linux", "ovs"),
        ("WIREGUARD", "VXLAN"),
        "/etc/x",
        tunnels_apart=True,
        labels={"zone": "a"},
        switch="unix:/run/x",
    )
    wishes.save(path)
    assert ForwarderWishes.load(path) == wishes
    changed = wishes.with_options({"labels": {}, "tunnels_apart": False, "switch": ""})
    assert changed == ForwarderWishes(("linux", "ovs"), ("WIREGUARD", "VXLAN"), "/etc/x")
    assert wishes.environment() == {
        "NSM_MECHANISMS": "WIREGUARD,VXLAN",
        "NSM_MECHANISM_PRIORITY": "WIREGUARD,VXLAN",
        "NSM_DEVICE_SELECTOR_FILE": "/etc/x",
        "NSM_SWITCH_DATABASE": "unix:/run/x",
        "NSM_TUNNELS_APART": "true",
        "NSM_LABELS": "zone:a",
    }
    assert ForwarderWishes().environment() == {}


def test_what_cannot_be_used_is_told(tmp_path):
    """A file of something else, and a device selector that is gone."""
    path = tmp_path / "forwarders.json"
    path.write_text('{"mechanism": []}')
    with pytest.raises(Invalid, match="mechanism is no wish"):
        ForwarderWishes.load(path)
    with pytest.raises(NotFound, match=r"gone\.yaml of this host is no file any more"):
        ForwarderWishes(device_selector=str(tmp_path / "gone.yaml")).check()
