"""The audit of a host finds what was planted, and nothing else."""

import asyncio
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.datapath import netns
from nsmesh.datapath.base import PolicyRule
from nsmesh.datapath.inventory import group_of
from nsmesh.datapath.leaks import (
    INTERFACE,
    KINDS,
    NAMESPACE,
    RULE,
    TABLE,
    TUNNEL,
    counted,
    leaks,
    stray_namespaces,
)
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root

OWNER = f"forwarder:leaks-{os.getpid()}"
GROUP = group_of(OWNER)
VNI = 77


def kinds(found):
    return sorted(leak.kind for leak in found)


def test_a_wire_that_lives_is_no_leak_and_a_forgotten_one_is():
    """Both its ends are told, with the connection; after Close nothing is."""

    async def main(a, b):
        datapath = LinuxDatapath(owner=OWNER)
        await datapath.apply(lab.simple(a, b, "w1", 1))
        assert leaks([a, b], {GROUP: {"w1"}}, tables=()) == []
        assert leaks([a, b], {group_of("forwarder:another"): ()}, tables=()) == []
        found = leaks([a, b], {GROUP: ()}, tables=())
        assert [(leak.kind, leak.owner) for leak in found] == [(INTERFACE, "w1")] * 2
        assert {leak.where for leak in found} == {a, b}
        await datapath.remove("w1")
        await datapath.drain()
        assert leaks([a, b], {GROUP: ()}, tables=()) == []
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_planted_tunnel_and_an_interface_without_alias_are_found():
    """A device that carries the group alone was begun and never finished; a VXLAN is a tunnel."""
    with lab.spaces(1) as (a,):
        lab.run(a, *f"ip link add t1 type vxlan id {VNI} dstport 4790 local 127.0.0.1".split())
        lab.run(a, *f"ip link set t1 group {GROUP} alias nsm:w9".split())
        lab.run(a, "ip", "link", "add", "v1", "type", "veth", "peer", "name", "v2")
        lab.run(a, *f"ip link set v1 group {GROUP}".split())
        found = {leak.name: (leak.kind, leak.owner) for leak in leaks([a, a], {GROUP: {"w1"}}, tables=())}
        assert found == {"t1": (TUNNEL, "w9"), "v1": (INTERFACE, "")}


def test_a_policy_rule_without_interface_is_found():
    """The table of a rule names the interface that it was for."""

    async def main(a, b):
        datapath = LinuxDatapath(owner=OWNER)
        wire = lab.simple(a, b, "w1", 1)
        near = replace(wire.a, rules=(PolicyRule(source="10.9.0.0/16"),))
        await datapath.apply(replace(wire, a=near))
        assert leaks([a], {GROUP: {"w1"}}, tables=()) == []
        lab.run(a, "ip", "link", "del", "nsm-1")
        assert kinds(leaks([a], {GROUP: {"w1"}}, tables=())) == [RULE]
        await datapath.remove("w1")
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_a_table_of_nftables_is_found_unless_it_is_wanted():
    """Only tables with our prefix are looked at, in any family."""
    with lab.spaces(1) as (a,):
        argv = ["ip", "netns", "exec", Path(a).name, "nft", "-f", "-"]
        rules = "add table netdev nsm_planted\nadd table inet nsm_wanted\nadd table ip somebody\n"
        made = subprocess.run(argv, input=rules, text=True, capture_output=True, check=False)
        if made.returncode:
            pytest.skip(f"no nftables here: {made.stderr}")
        found = leaks([a], {}, tables={"nsm_wanted"})
        assert [(leak.kind, leak.name) for leak in found] == [(TABLE, "nsm_planted")]
        assert leaks([a], {}) == []


def test_a_namespace_of_nobody_is_found():
    """By its prefix, unless it is among those that somebody has; and each kind is counted."""
    prefix = f"leaks{os.getpid()}."
    with netns.temporary(f"{prefix}a", f"{prefix}b"):
        found = stray_namespaces(prefix, {f"{prefix}a"})
    assert [(leak.kind, leak.name) for leak in found] == [(NAMESPACE, f"{prefix}b")]
    assert counted(found) == {(kind,): float(kind == NAMESPACE) for kind in KINDS}
