import asyncio
import subprocess
import sys

import datapath_lab as lab
import pytest

from nsmesh.core.errors import Conflict, Exhausted, Invalid, MeshError, NotFound, Unavailable
from nsmesh.datapath import veth
from nsmesh.datapath.base import CrossConnect, KernelPort, PolicyRule, Route
from nsmesh.datapath.linux import LinuxDatapath

pytestmark = pytest.mark.root


def test_a_foreign_interface_is_never_touched():
    """A name in use is a Conflict that names interface, namespace and remedy; nothing of the wire is made."""

    async def main(a, b):
        lab.run(b, "ip", "link", "add", "nse-1", "type", "veth", "peer", "name", "other")
        before = lab.ip(b, "link", "show")
        datapath = LinuxDatapath()
        with pytest.raises(Conflict) as caught:
            await datapath.apply(lab.simple(a, b))
        assert "nse-1" in caught.value.what
        assert b in caught.value.what
        assert caught.value.remedy
        assert lab.names(a) == set()
        assert lab.ip(b, "link", "show") == before
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("restarted", [False, True])
def test_another_connections_interface_is_a_conflict(restarted):
    """A name that belongs to another connection stays with it, also across a restart."""

    async def main(a, b, c):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        if restarted:
            datapath = LinuxDatapath()
        with pytest.raises(Conflict, match="w1"):
            await datapath.apply(lab.simple(a, c, "w2"))
        assert lab.pings(a, "10.0.1.2")
        assert lab.names(c) == set()
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


def test_a_conflict_leaves_the_wire_that_was():
    """A wire that shall move to a taken name stays as it is."""

    async def main(a, b, c):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        lab.run(c, "ip", "link", "add", "nse-1", "type", "veth", "peer", "name", "other")
        with pytest.raises(Conflict):
            await datapath.apply(lab.simple(a, c))
        assert lab.pings(a, "10.0.1.2")
        assert (await datapath.apply(lab.simple(a, b))).outcome == "unchanged"
        await datapath.aclose()

    with lab.spaces(3) as (a, b, c):
        asyncio.run(main(a, b, c))


@pytest.mark.parametrize(
    ("port", "error"),
    [
        ({"routes": (Route("10.5.0.0/16", "10.0.9.9"), Route("10.0.0.0/8", "0.0.0.0"))}, MeshError),
        ({"addresses": ("ff02::1/128",)}, Invalid),
        ({"mtu": 60}, Invalid),
        ({"mtu": 65535, "rules": (PolicyRule(source="10.0.0.1/32"),), "addresses": ("::1/128",)}, MeshError),
    ],
)
def test_a_refused_wish_leaves_nothing_behind(port, error):
    """When the kernel refuses a part of a new wire, no interface, address or rule of it remains."""

    async def main(a, b):
        datapath = LinuxDatapath()
        values = {"addresses": ("10.0.0.1/32",), "rules": (PolicyRule(source="10.0.0.1/32"),)} | port
        wire = CrossConnect("w1", KernelPort(b, "nsm-1"), KernelPort(a, "nse-1", **values))
        with pytest.raises(error) as caught:
            await datapath.apply(wire)
        assert "nse-1" in caught.value.what
        assert caught.value.remedy
        assert lab.names(a) == lab.names(b) == set()
        assert lab.rules(a) == []
        assert await datapath.has() == []
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_namespace_is_not_found(missing):
    """The namespace of either end may be gone: NotFound with its path, and nothing in the other one."""

    async def main(a):
        ends = [a, a]
        ends[missing] = "/run/netns/no-such-namespace"
        datapath = LinuxDatapath()
        with pytest.raises(NotFound, match="no-such-namespace"):
            await datapath.apply(lab.simple(*ends))
        assert lab.names(a) == set()
        await datapath.aclose()

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))


def test_what_is_no_namespace_is_invalid(tmp_path):
    """A file of another kind is Invalid, with its path, and the thread is home again."""

    async def main(a):
        plain = tmp_path / "plain"
        plain.write_text("")
        datapath = LinuxDatapath()
        with pytest.raises(Invalid, match="plain"):
            await datapath.apply(lab.simple(a, str(plain)))
        await datapath.apply(lab.simple(a, a))
        await datapath.aclose()

    with lab.spaces(1) as (a,):
        asyncio.run(main(a))


def test_indexes_in_use_are_passed_over(monkeypatch):
    """If somebody has the index that we chose, another one is taken, and nobody's interface is configured."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.apply(lab.simple(a, b))
        taken = lab.link(a, "nsm-1")["ifindex"]
        indexes = iter([taken, 99001, 99002, 99003])
        monkeypatch.setattr(veth, "fresh_index", lambda: next(indexes))
        await datapath.apply(lab.simple(a, b, "w2", 2))
        assert lab.link(a, "nsm-2")["ifindex"] == 99002
        assert lab.addresses(a, "nsm-1") == ["10.0.1.1/32", "fd00:1::1/128"]
        monkeypatch.setattr(veth, "fresh_index", lambda: taken)
        with pytest.raises(Exhausted):
            await datapath.apply(lab.simple(a, b, "w3", 3))
        await datapath.aclose()

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))


def test_without_privilege_it_says_what_is_needed():
    """Not root: Unauthorized, with the capabilities that are missing, and no traceback of ours."""
    program = """
import asyncio, sys
from nsmesh.core.errors import Unauthorized
from nsmesh.datapath.base import CrossConnect, KernelPort
from nsmesh.datapath.linux import LinuxDatapath
async def main(a, b):
    try:
        await LinuxDatapath().apply(CrossConnect("w", KernelPort(a, "x"), KernelPort(b, "y")))
    except Unauthorized as error:
        print(error)
asyncio.run(main(*sys.argv[1:]))
"""
    with lab.spaces() as (a, b):
        for bounding in ("-sys_admin", "-net_admin"):
            setpriv = ["setpriv", f"--bounding-set={bounding}", f"--inh-caps={bounding}"]
            said = subprocess.run(
                [*setpriv, sys.executable, "-c", program, a, b],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            assert "CAP_NET_ADMIN" in said
            assert lab.names(a) == lab.names(b) == set()


def test_a_closed_driver_refuses():
    """After aclose nothing is done any more, and the thread stays where it is."""

    async def main(a, b):
        datapath = LinuxDatapath()
        await datapath.aclose()
        await datapath.aclose()
        with pytest.raises(Unavailable):
            await datapath.apply(lab.simple(a, b))

    with lab.spaces() as (a, b):
        asyncio.run(main(a, b))
