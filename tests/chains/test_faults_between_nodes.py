"""What may be wrong with another node: silent, slow, a liar, of the same name, of another time, cut off."""

from __future__ import annotations

import asyncio

import pytest
from remote_mesh import RemoteMesh, entry

from nsmesh.chains.registry import memory_registry
from nsmesh.core.call import Call
from nsmesh.core.errors import Conflict, MeshError, TimedOut, Unavailable
from nsmesh.core.virtual import EPOCH, VirtualClock, run
from nsmesh.mechanisms.kernel import Kernel
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Connection, NetworkService, NetworkServiceRequest

LIFE = 600.0
"""Seconds that the tokens of these meshes live."""


class Between:
    """Stands on the line to another node's manager; ``change`` does to an answer what the test wants."""

    def __init__(self, handler, change=lambda answer: None, *, delay=0.0, cut=False):
        self.handler, self.change, self.delay, self.cut = handler, change, delay, cut
        self.asked = 0
        self.granted = asyncio.Event()

    async def request(self, call, request):
        self.asked += 1
        try:
            async with asyncio.timeout_at(call.deadline):
                await asyncio.sleep(self.delay)
                answer = await self.handler.request(call, request)
        except TimeoutError as error:
            raise TimedOut("the node did not answer in time") from error
        self.granted.set()
        if self.cut:
            raise Unavailable("the connection broke")
        answer = copy_of(answer)
        self.change(answer)
        return answer

    async def close(self, call, connection):
        if self.cut:
            raise Unavailable("nobody is there")
        await self.handler.close(call, connection)

    def monitor(self, call, selector):
        return self.handler.monitor(call, selector)


def between(mesh, number, *arguments, **options):
    url = mesh[number].url
    made = mesh.peers.known[url] = Between(mesh.peers.known[url], *arguments, **options)
    return made


def scenario(body, count=3, **options):
    async def main():
        async with RemoteMesh(count, **options).running() as mesh:
            await body(mesh)

    run(main())


def loop_time():
    return asyncio.get_running_loop().time()


def test_a_slow_node_leaves_time_for_the_next():
    """It may use half of the deadline, then another endpoint is asked; for the next wire it comes last."""

    async def body(mesh):
        await mesh[2].offer()
        await mesh[3].offer()
        slow = between(mesh, 2, delay=100.0)
        begun = loop_time()
        first = await mesh[1].ask("c-0")
        assert loop_time() - begun == pytest.approx(7.5, abs=0.1)
        begun = loop_time()
        for number in (1, 2, 3):
            await mesh[1].ask(f"c-{number}", f"nsm-{number}1")
        assert loop_time() - begun < 0.1
        assert slow.asked == 1
        assert first.network_service_endpoint_name == "nse3"
        for number in range(4):
            await mesh[1].close(f"c-{number}")
        assert mesh.empty

    scenario(body)


def test_all_slow_is_said_in_time():
    """Each is named with what it did, within the deadline of the client, and nothing is left."""

    async def body(mesh):
        for number in (2, 3):
            await mesh[number].offer()
            between(mesh, number, delay=100.0)
        begun = loop_time()
        with pytest.raises(MeshError, match=r"nse2.*did not answer in time") as caught:
            await mesh[1].ask()
        assert "nse3" in str(caught.value)
        assert loop_time() - begun <= 15.1
        await asyncio.sleep(20)
        assert mesh.empty

    scenario(body)


def shortened(answer):
    del answer.path.path_segments[3:]
    answer.path.path_segments[2].id = "changed"


def renamed(answer):
    answer.path.path_segments[0].id = "another"


def emptied(answer):
    answer.ClearField("path")


def beyond(answer):
    answer.path.index = 17


def of_another(answer):
    answer.id = "of-another"


@pytest.mark.parametrize("lie", [shortened, renamed, emptied])
def test_a_node_that_bends_the_path_is_passed_over(lie):
    """Its answer could not be refreshed or closed by those in front: the next one is asked.

    What it made is closed at once, also where the answer does not say how: it knows who asked.
    """

    async def body(mesh):
        await mesh[2].offer()
        await mesh[3].offer()
        liar = between(mesh, 2, lie)
        answer = await mesh[1].ask()
        assert answer.network_service_endpoint_name == "nse3"
        assert liar.asked == 1
        assert not mesh[2].kernel.interfaces
        await mesh[1].close()
        await asyncio.sleep(LIFE + 1)
        assert mesh.empty
        await mesh.register()
        mesh.peers.refuse.add(mesh[3].url)
        with pytest.raises(MeshError, match="got a bent path from the next hop"):
            await mesh[1].ask()
        await asyncio.sleep(LIFE + 1)
        assert mesh.empty

    scenario(body)


@pytest.mark.parametrize("lie", [beyond, of_another])
def test_what_a_node_says_of_the_callers_place_does_not_matter(lie):
    """Index and id of an answer are put right by who asked: refresh and Close work."""

    async def body(mesh):
        await mesh[2].offer()
        between(mesh, 2, lie)
        answer = await mesh[1].ask()
        again = await mesh[1].ask()
        assert (answer.id, again.id, again.path.index) == ("c-0", "c-0", 0)
        mesh.wired(1, 2)
        await mesh[1].close()
        assert mesh.empty

    scenario(body, 2)


def test_both_sides_may_begin_at_once():
    """Many wires in both directions at one moment: each has a VNI of its own, and all tunnels meet."""

    async def body(mesh):
        await mesh[1].offer("one")
        await mesh[2].offer("two")
        for name in ("one", "two"):
            await mesh[1].put(NetworkService(name=name, payload="IP"))

        async def ask(number, wire):
            node, service = mesh[number], ("two", "one")[number - 1]
            return await _ask(node, f"c{number}-{wire}", f"n{wire}", service)

        await asyncio.gather(*(ask(number, wire) for wire in range(20) for number in (1, 2)))
        here, there = ({tunnel.vni: tunnel for tunnel in mesh[number].tunnels} for number in (1, 2))
        assert len(here) == 40
        assert here.keys() == there.keys()
        assert all(here[vni].local == there[vni].remote for vni in here)
        for wire in range(20):
            for number in (1, 2):
                await mesh[number].close(f"c{number}-{wire}")
        assert mesh.empty

    scenario(body, 2)


async def _ask(node, name, interface, service):
    made = Connection(id=name, network_service=service)
    preference = Kernel(inode_url=f"file:///run/netns/app{node.number}", name=interface).offer(made)
    request = NetworkServiceRequest(connection=made, mechanism_preferences=[preference])
    return await node.client.request(Call().within(15), request)


def test_an_underlay_that_breaks_in_mid_request_leaves_nothing_for_long():
    """What the far node made, and nobody heard of, goes with its tokens; when it is back, all works."""

    async def body(mesh):
        await mesh[2].offer()
        line = between(mesh, 2, cut=True)
        with pytest.raises(Unavailable, match="the connection broke"):
            await mesh[1].ask()
        assert line.granted.is_set()
        assert not mesh[1].kernel.interfaces
        await asyncio.sleep(LIFE + 1)
        assert mesh.empty
        line.cut = False
        await mesh.register()
        await mesh[1].ask()
        mesh.wired(1, 2)
        await mesh[1].close()
        assert mesh.empty

    scenario(body, 2)


def test_an_underlay_that_breaks_and_returns_at_once_is_no_second_wire():
    """The client asks again while the far node still holds what the lost answer was about."""

    async def body(mesh):
        await mesh[2].offer()
        line = between(mesh, 2, cut=True)
        with pytest.raises(Unavailable):
            await mesh[1].ask()
        line.cut = False
        await mesh[1].ask()
        (near,) = mesh[1].tunnels
        assert near.vni in {tunnel.vni for tunnel in mesh[2].tunnels}
        await mesh[1].close()
        await asyncio.sleep(LIFE + 1)
        assert mesh.empty

    scenario(body, 2)


class Skewed(VirtualClock):
    """The clock of a node that is some seconds ahead."""

    def __init__(self, ahead):
        super().__init__(EPOCH + ahead)


@pytest.mark.parametrize("ahead", [-5.0, 5.0])
def test_clocks_five_seconds_apart_do_no_harm(ahead):
    """Registrations, tokens and refreshes between nodes last as they would."""

    async def body(mesh):
        await mesh[2].offer()
        await mesh[1].ask()
        first = mesh.wired(1, 2)
        for _ in range(200):
            await asyncio.sleep(30)
            await mesh.register()  # stands for their own refreshes
            assert mesh.wired(1, 2) == first
        await mesh[1].close()
        assert mesh.empty

    scenario(body, 2, clocks={2: Skewed(ahead)})


def test_two_forwarders_of_one_name_are_told():
    """On two nodes: each takes the name once, then the second is told that there are two, and where."""

    async def main():
        clock = VirtualClock()
        registry = memory_registry(clock=clock)
        async with registry.running():
            mesh = RemoteMesh(2)
            for node in mesh.nodes.values():
                node.manager.registry.elements[-2]._target = registry
            async with mesh[1].manager.registry.running(), mesh[2].manager.registry.running():
                await mesh[1].put(entry("forwarder", "forwarder", p2p="true"))
                await mesh[2].put(entry("forwarder", "forwarder", p2p="true"))
                await mesh[1].put(entry("forwarder", "forwarder", p2p="true"))
                with pytest.raises(Conflict, match=r"forwarder is taken: .*192.0.2.1.*192.0.2.2.*NSM_NAME"):
                    await mesh[2].put(entry("forwarder", "forwarder", p2p="true"))

    run(main())
