"""Several forwarders on one node, side by side: who is chosen, and who goes on when one dies."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from remote_mesh import RemoteMesh, entry

from nsmesh.chains.forwarder import Forwarder
from nsmesh.core.call import Call
from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.tokens import PlainTokens
from nsmesh.core.virtual import run
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.model.messages import Destination, Match, Metadata, NetworkService


class Side:
    """One more forwarder on a node, with labels of its own, in the same kernel."""

    def __init__(self, node, name, **labels):
        self.node, self.name, self.labels = node, name, labels
        self.datapath = FakeDatapath(node.kernel, name=name)
        self.forwarder = Forwarder(
            name,
            registry=node.manager.registry,
            datapath=self.datapath,
            mechanisms=node.mechanisms,
            peers=node.peers,
            tokens=PlainTokens(node.clock),
            clock=node.clock,
        )
        node.peers.known[f"unix:///{name}"] = self.forwarder.server

    async def start(self, stack):
        for one in (self.forwarder.registry, self.forwarder.onward, self.forwarder.server):
            await stack.enter_async_context(one.running())
        await self.node.put(entry(self.name, "forwarder", **self.labels))

    def die(self):
        self.node.peers.refuse.add(f"unix:///{self.name}")


def metadata(**labels):
    return Match(metadata=Metadata(labels=labels), routes=[Destination()])


def scenario(body, *sides):
    async def main():
        async with RemoteMesh(1).running() as mesh, AsyncExitStack() as stack:
            node = mesh[1]
            made = {name: Side(node, name, **labels) for name, labels in sides}
            for side in made.values():
                await side.start(stack)
            await node.offer()
            await body(mesh, node, made)

    run(main())


def names(answer):
    return [segment.name for segment in answer.path.path_segments]


async def service(node, *matches):
    await node.put(NetworkService(name="intranet", payload="IP", matches=matches))


def test_the_match_names_the_labels_of_the_forwarder():
    """Each match its own; one without metadata wants p2p; all at once, on one node."""

    async def body(mesh, node, sides):
        vlan = metadata(kind="vlan")
        vlan.source_selector["wants"] = "vlan"
        fast = metadata(speed="{{ .speed }}")
        fast.source_selector["wants"] = "speed"
        await service(node, vlan, fast, Match(routes=[Destination()]))
        by_labels = {
            "vlan": ({"wants": "vlan"}, "vlan"),
            "fast": ({"wants": "speed", "speed": "high"}, "fast"),
            "fwd1": ({}, "plain"),
        }
        for forwarder, (labels, number) in by_labels.items():
            answer = await node.ask(f"c-{number}", f"nsm-{number}", labels=labels)
            assert names(answer)[2] == forwarder
        assert len(node.kernel.wires()) == 3
        for _, number in by_labels.values():
            await node.close(f"c-{number}")
        assert mesh.empty

    scenario(body, ("vlan", {"kind": "vlan"}), ("fast", {"speed": "high"}))


def test_a_match_that_no_forwarder_fits_falls_through_or_is_explained():
    """With fallthrough the next match decides; without, each forwarder is named with what it lacks."""

    async def body(mesh, node, sides):
        wants = metadata(kind="vlan")
        wants.fallthrough = True
        await service(node, wants, Match(routes=[Destination()]))
        assert names(await node.ask())[2] == "fwd1"
        await node.close()
        wants.fallthrough = False
        await service(node, wants, Match(routes=[Destination()]))
        with pytest.raises(MeshError, match=r"no candidates found .*kind=vlan\} is wanted"):
            await node.ask()
        assert mesh.empty

    scenario(body, ("fast", {"speed": "high"}))


def test_a_dead_forwarder_is_passed_over_and_its_wires_are_taken_over():
    """The next refresh goes to the other one, which goes on with the same interfaces and addresses."""

    async def body(mesh, node, sides):
        first = await node.ask()
        dead = names(first)[2]
        others = {"fwd1", *sides} - {dead}
        before = set(node.kernel.interfaces)
        node.peers.refuse.add(f"unix:///{dead}")
        again = await node.ask()
        assert names(again)[2] in others
        assert again.context == first.context
        assert set(node.kernel.interfaces) == before
        assert len(node.kernel.wires()) == 1
        await node.close()
        assert mesh.empty

    scenario(body, ("second", {"p2p": "true"}))


def test_all_dead_is_one_sentence_and_who_returns_is_used():
    """Each is named; nobody is passed over for good."""

    async def body(mesh, node, sides):
        for name in ("fwd1", "second"):
            node.peers.refuse.add(f"unix:///{name}")
        with pytest.raises(Unavailable, match=r"all forwarders have failed: .*fwd1.*second|second.*fwd1"):
            await node.ask()
        node.peers.refuse.clear()
        await node.ask()
        await node.close()
        await node.client.close(Call().within(15), (await node.ask("other", "nsm-2")))
        assert mesh.empty

    scenario(body, ("second", {"p2p": "true"}))
