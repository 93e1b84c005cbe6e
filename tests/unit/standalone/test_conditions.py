"""What joins the nodes of one host: the commands that make it, with latency and loss, and without."""

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from nsmesh.core.errors import Unimplemented
from nsmesh.datapath import netns, programs
from nsmesh.datapath.programs import Finished
from nsmesh.standalone import underlay
from nsmesh.standalone.children import Children
from nsmesh.standalone.nodes import Conditions, nodes_of
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.underlay import Underlay, check_conditions

LACKS = "Error: Specified qdisc kind is unknown."


@dataclass
class Host:
    """``asked``: each command, without the namespace that it is for; ``lacks``: what tc says to netem."""

    asked: list
    spaces: list
    lacks: str = ""

    async def run(self, *argv, given=""):
        self.asked.append(" ".join(argv))
        code = 2 if self.lacks and argv[0] == "tc" else 0
        return Finished(code, "", self.lacks)

    async def demand(self, error, *argv, given=""):
        return (await self.run(*argv)).out

    @property
    def queues(self):
        return [line for line in self.asked if line.startswith("tc ")]


@pytest.fixture
def host(monkeypatch):
    host = Host([], [])
    for name in ("run", "demand"):
        monkeypatch.setattr(programs, name, getattr(host, name))
    monkeypatch.setattr(netns, "create", host.spaces.append)

    def delete(name):
        with contextlib.suppress(ValueError):
            host.spaces.remove(name)

    monkeypatch.setattr(netns, "delete", delete)
    return host


def make(folder, conditions):
    """Make what joins the nodes, and take it away again; return what namespaces there were."""
    paths = MeshPaths.of("m", str(folder / "r"), str(folder / "s"))
    children = Children(paths.children)

    async def main():
        made = Underlay(paths, children, conditions)
        try:
            await made.make(nodes_of(paths, conditions.nodes).values())
            return set(children.namespaces)
        finally:
            await made.aclose()
            assert not children.namespaces

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (Conditions(2, latency=0.002), "delay 2000us"),
        (Conditions(2, loss=0.1), "loss 0.1%"),
        (Conditions(2, latency=1.5, loss=100), "delay 1500000us loss 100%"),
        (Conditions(2, latency=1e-6), "delay 1us"),
    ],
)
def test_each_node_is_slow_and_lossy_on_its_way_out(host, tmp_path, conditions, said):
    """One netem for each node, at its own end of the link, with room for what is on its way."""
    assert make(tmp_path, conditions) == {"m.underlay", "m.node1", "m.node2"}
    assert host.queues == [
        f"tc -n m.{node} qdisc add dev eth0 root netem limit 10000 {said}" for node in ("node1", "node2")
    ]
    assert host.spaces == []


def test_without_conditions_tc_is_not_asked(host, tmp_path):
    """A kernel without netem plays nodes as well, with the MTU that is wished for."""
    make(tmp_path, Conditions(3, mtu=9000))
    assert host.queues == []
    assert sum("mtu 9000" in line for line in host.asked) == 4


def test_a_refusal_of_tc_leaves_nothing(host, tmp_path):
    """What was made until then is taken away, and the sentence has the words of tc, and what to do."""
    host.lacks = LACKS
    with pytest.raises(Unimplemented, match=r"need tc netem.*qdisc kind is unknown.*leave them out"):
        make(tmp_path, Conditions(2, latency=0.1))
    assert host.spaces == []
    assert len(host.queues) == 1


def test_what_the_kernel_lacks_is_told_before_anything_is_made(monkeypatch):
    """It is tried only where it is asked for."""
    tried = []

    def lacking(probe):
        tried.append(probe)
        return "no such queue"

    monkeypatch.setattr(underlay, "in_namespace", lacking)
    check_conditions(Conditions(2, mtu=9000))
    assert tried == []
    for conditions in (Conditions(2, latency=0.1), Conditions(2, loss=1)):
        with pytest.raises(Unimplemented, match="kernel lacks: no such queue - leave them out"):
            check_conditions(conditions)
    monkeypatch.setattr(underlay, "in_namespace", lambda probe: "")
    check_conditions(Conditions(2, latency=0.1, loss=1))
