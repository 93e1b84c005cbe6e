"""The doctor: each thing that is missing is told with what it costs and what to do about it."""

import os
import resource
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nsmesh.core.errors import Unauthorized
from nsmesh.datapath import ovs_programs
from nsmesh.standalone import doctor, features
from nsmesh.standalone.doctor import FINE, LIMITED, MISSING
from nsmesh.standalone.features import Feature
from nsmesh.standalone.paths import MeshPaths


@dataclass
class Host:
    """``refused``: what nft says against every rule."""

    programs: dict[str, str] = field(
        default_factory=lambda: {
            name: f"/usr/bin/{name}"
            for name in (
                *("ip", "ping", "nft", "wg", "wireguard-go"),
                *("ovs-vswitchd", "ovsdb-server", "ovsdb-tool"),
            )
        }
    )
    lacks: dict[str, str] = field(default_factory=dict)
    refused: str = ""


@pytest.fixture
def host(monkeypatch):
    """Give a host as the test wants it: its programs, and what its kernel lacks, by the feature's name."""
    host = Host()

    def probe(name):
        return lambda: host.lacks.get(name, "")

    known = tuple(
        Feature(one.name, probe(one.name), one.needed_for, one.remedy, one.vital) for one in features.FEATURES
    )
    monkeypatch.setattr(features, "FEATURES", known)
    monkeypatch.setattr(features, "wireguard", probe("wireguard"))
    monkeypatch.setattr(features, "in_namespace", lambda probe: probe())
    monkeypatch.setattr(doctor, "_refusal", lambda _rules: host.refused)
    monkeypatch.setattr(shutil, "which", host.programs.get)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(ovs_programs, "lacks_dpdk", ovs_programs.lacks_switch)
    return host


def findings(tmp_path):
    found = doctor.examine(MeshPaths("t", tmp_path / "run", tmp_path / "state"))
    assert len({one.what for one in found}) == len(found)
    return {one.what: one for one in found}


def test_a_host_that_has_all(host, tmp_path):
    """All is well, and nothing is to be done."""
    found = findings(tmp_path)
    assert {one.state for one in found.values()} == {FINE}
    assert not any(one.remedy for one in found.values())


@pytest.mark.parametrize(
    ("program", "what", "remedy", "needed_for"),
    [
        ("ip", "ip", "apt-get install iproute2", "vpn-gateway"),
        ("ping", "ping", "apt-get install iputils-ping", "the demo"),
        ("nft", "nft", "apt-get install nftables", "firewall"),
        ("wg", "wireguard", "apt-get install wireguard-tools", "vpn-gateway"),
    ],
)
def test_a_missing_program(host, tmp_path, program, what, remedy, needed_for):
    """It is told once: nothing that would be tried with it is told besides."""
    del host.programs[program]
    found = findings(tmp_path)
    assert [name for name, one in found.items() if one.state != FINE] == [what]
    assert found[what].state == MISSING
    assert found[what].remedy == remedy
    assert found[what].needed_for.startswith(needed_for)


@pytest.mark.parametrize("feature", features.FEATURES, ids=lambda feature: feature.name)
def test_a_missing_feature(host, tmp_path, feature):
    """The kernel's words, what will not work, and what to do; only without veth nothing works at all."""
    host.lacks[feature.name] = "Unknown device type"
    one = findings(tmp_path)[feature.name]
    assert one.state == (MISSING if feature.name == "veth" else LIMITED)
    assert one.detail == "Unknown device type"
    assert feature.needed_for
    assert "modprobe" in one.remedy or "kernel" in one.remedy


def test_wireguard_as_a_program(host, tmp_path):
    """A kernel without WireGuard is no harm where wireguard-go is; without both it is."""
    host.lacks["wireguard"] = "Unknown device type"
    del host.programs["wg"]
    assert findings(tmp_path)["wireguard"].detail == "/usr/bin/wireguard-go"
    del host.programs["wireguard-go"]
    one = findings(tmp_path)["wireguard"]
    assert (one.state, one.remedy) == (MISSING, "apt-get install wireguard-go")
    assert "neither" in one.detail


def test_rules_that_the_kernel_refuses(host, tmp_path):
    """They are told in nft's words."""
    host.refused = "Error: Could not process rule: Operation not supported"
    found = findings(tmp_path)
    assert found["nftables netdev"].detail == host.refused
    assert found["nftables netdev"].needed_for == "firewall"
    assert found["nftables nat"].needed_for == "vpn-gateway"
    assert (found["nftables netdev"].state, found["nftables reject"].state) == (MISSING, LIMITED)


def test_no_namespace_can_be_made(host, tmp_path, monkeypatch):
    """It is told once, with its remedy, and not for each feature."""

    def refuse(_probe):
        raise Unauthorized("namespaces are forbidden", remedy="allow them")

    monkeypatch.setattr(features, "in_namespace", refuse)
    wrong = [one for one in findings(tmp_path).values() if one.state != FINE]
    assert [(one.what, one.detail, one.remedy) for one in wrong] == [
        ("namespaces", "namespaces are forbidden", "allow them")
    ]


def test_without_root(host, tmp_path, monkeypatch):
    """Nothing is tried that needs it, and that is said first."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(features, "in_namespace", lambda _probe: pytest.fail("it was tried"))
    found = findings(tmp_path)
    assert found["rights"].state == MISSING
    assert "sudo" in found["rights"].remedy
    assert "veth" not in found


def test_few_files_and_little_room(host, tmp_path, monkeypatch):
    """Limits that many wires run into are told with a way to raise them."""
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (256, 512))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=10 << 20))
    found = findings(tmp_path)
    assert (found["open files"].state, found["open files"].detail) == (LIMITED, "limit 256 (hard 512)")
    assert found["folders"].detail.startswith("10 MiB free under ")


def test_a_folder_that_cannot_be_written(host, tmp_path, monkeypatch):
    """With the options that choose another one."""
    monkeypatch.setattr(os, "access", lambda path, _mode: path != Path(tmp_path))
    one = findings(tmp_path)["folders"]
    assert (one.state, one.remedy) == (MISSING, "use --run-dir, --state-dir")


def test_a_host_without_open_vswitch(host, tmp_path):
    """Both kinds of wires that need it are told with the package; a mesh without it still runs."""
    for name in ("ovs-vswitchd", "ovsdb-server", "ovsdb-tool"):
        del host.programs[name]
    found = findings(tmp_path)
    assert {found[name].state for name in ("ovs", "ovs dpdk")} == {LIMITED}
    assert found["ovs"].remedy == "apt-get install openvswitch-switch"
    assert found["ovs dpdk"].remedy == "apt-get install openvswitch-switch-dpdk librte-meta-net"
    assert MISSING not in {one.state for one in found.values()}
