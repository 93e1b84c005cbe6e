"""Descriptors through client, manager, forwarder and endpoint, over real sockets: passed, held, let go."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from descriptor_mesh import OURS, DescriptorMesh, counted, holds, open_files

from nsmesh.core.call import Call
from nsmesh.core.errors import Invalid, MeshError, TimedOut
from nsmesh.mechanisms.kernel import OWN_NAMESPACE
from nsmesh.model.fileurl import inode_url
from nsmesh.model.messages import (
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceLabels,
)
from nsmesh.rpc.descriptors import SHARED
from nsmesh.rpc.files import HELD

NAMESPACE = "/proc/thread-self/ns/net"


def inode_of(path):
    found = Path(path).stat()
    return inode_url(found.st_dev, found.st_ino)


def scenario(body, **options):
    """Run ``body(mesh)``; when the mesh is gone, every descriptor is."""

    async def main():
        async with DescriptorMesh(**options) as mesh:
            await body(mesh)

    before = open_files()
    try:
        asyncio.run(main())
    finally:
        SHARED.close()
    assert len(HELD) == 0
    assert not set(open_files()) - set(before)  # what an earlier test dropped may be gone by now


def test_a_wire_between_two_that_no_path_leads_to():
    """Client and endpoint name namespaces that only they know, and the endpoint's socket has no name.

    Descriptors lead the forwarder to all three, and each gets back what it named.
    """

    async def body(mesh):
        before = counted()
        connection = await mesh.ask()
        assert connection.mechanism.parameters["inodeURL"] == OWN_NAMESPACE
        assert mesh.watch.answered == [OWN_NAMESPACE]
        (ends,) = mesh.datapath.kernel.wires().values()
        for end in ends:
            assert end.netns.startswith(f"/proc/{os.getpid()}/fd/")
            assert inode_of(end.netns) == inode_of(NAMESPACE)
        await mesh.close()
        assert mesh.datapath.kernel.wires() == {}
        assert counted() == before

    scenario(body)


def test_a_refresh_changes_nothing():
    """A refresh reaches the same paths, so the wire stays as it is; the endpoint is told its own inode."""

    async def body(mesh):
        await mesh.ask()
        (first,) = mesh.datapath.kernel.wires().values()
        changes, held = mesh.datapath.kernel.changes, counted()
        for _ in range(5):
            await mesh.ask()
        assert mesh.watch.asked[-1] == ["", inode_of(NAMESPACE)]
        assert list(mesh.datapath.kernel.wires().values()) == [first]
        assert mesh.datapath.kernel.changes == changes
        assert counted() == held
        await mesh.close()
        assert mesh.watch.closed == [inode_of(NAMESPACE)]

    scenario(body)


def test_many_connections_share_one_file():
    """Forty wires in one namespace cost one descriptor of it, until the last of them is closed."""

    async def body(mesh):
        before = counted()
        await mesh.ask(0)
        files = len(HELD)
        await asyncio.gather(*(mesh.ask(number) for number in range(1, 40)))
        assert len(HELD) == files
        for number in range(39):
            await mesh.close(number)
        assert len(HELD) == files
        await mesh.close(39)
        assert len(HELD) == files - 1
        assert counted() == before

    scenario(body)


def test_roles_of_one_process_pass_paths():
    """Manager and forwarder in one process: nothing is sent between them, and what one holds both hold."""

    async def body(mesh):
        before = counted()
        await mesh.ask()
        (ends,) = mesh.datapath.kernel.wires().values()
        assert ends[0].netns.startswith(f"/proc/{os.getpid()}/fd/")
        assert inode_of(ends[0].netns) == inode_of(NAMESPACE)
        await mesh.ask()
        await mesh.close()
        assert counted() == before

    scenario(body, share=True)


def test_plain_paths_still_work():
    """A client that passes no descriptors names a path that all see, and gets its own words back."""

    async def body(mesh):
        plain = await mesh.plain_client()
        url = "file:///run/netns/not-there"
        for _ in range(2):
            answer = await mesh.ask(url=url, client=plain)
            assert answer.mechanism.parameters["inodeURL"] == url
        (ends,) = mesh.datapath.kernel.wires().values()
        assert ends[0].netns == "/run/netns/not-there"
        await mesh.close(client=plain)

    scenario(body)


def test_a_client_that_cannot_open_its_path_passes_it_on():
    """A path that is not there for the client may be there for the forwarder, which decides."""

    async def body(mesh):
        answer = await mesh.ask(url="file:///run/netns/not-there")
        assert answer.mechanism.parameters["inodeURL"] == "file:///run/netns/not-there"
        (ends,) = mesh.datapath.kernel.wires().values()
        assert ends[0].netns == "/run/netns/not-there"

    scenario(body)


@pytest.mark.parametrize(
    "path",
    ["/proc/thread-self/ns/net", "/proc/self/ns/net", f"/proc/{os.getpid()}/fd/0"],
    ids=["thread-self", "self", "descriptor"],
)
def test_nobody_names_files_of_the_manager(path):
    """Without its descriptor, a path that each reads as its own is refused with the reason."""

    async def body(mesh):
        plain = await mesh.plain_client()
        with pytest.raises(Invalid, match="would mean a namespace of this process - pass a descriptor"):
            await mesh.ask(url=f"file://{path}", client=plain)

    scenario(body)


def test_an_inode_is_answered_as_it_was_named():
    """Who names an inode and sends its descriptor reads the same inode in the answer."""

    async def body(mesh):
        plain = await mesh.plain_client()
        url = await mesh.send(plain, NAMESPACE)
        answer = await mesh.ask(url=url, client=plain)
        assert answer.mechanism.parameters["inodeURL"] == url == inode_of(NAMESPACE)

    scenario(body)


def test_what_is_known_needs_no_new_descriptor():
    """Refresh and Close on a new connection, without a descriptor, find what the first Request brought."""

    async def body(mesh):
        async with AsyncExitStack() as stack:
            first = await mesh.plain_client(stack)
            url = await mesh.send(first, NAMESPACE)
            answer = await mesh.ask(url=url, client=first)
        SHARED.close()  # a minute has passed
        again = await mesh.plain_client()
        request = mesh.wanted(url=url)
        request.connection.CopyFrom(answer)
        answer = await again.request(OURS.within(1), request)
        assert answer.mechanism.parameters["inodeURL"] == url
        assert len(mesh.datapath.kernel.wires()) == 1
        await again.close(OURS.within(1), answer)
        assert mesh.datapath.kernel.wires() == {}

    scenario(body)


def test_another_connection_has_to_bring_its_own():
    """An inode that one connection brought is nothing to another: it waits for the descriptor."""

    async def body(mesh):
        plain = await mesh.plain_client()
        SHARED.close()
        with pytest.raises(TimedOut):
            await mesh.ask(2, seconds=0.3, url=inode_of(NAMESPACE), client=plain)

    scenario(body)


def test_a_descriptor_may_come_later():
    """A Request waits for its descriptor, which comes with some later bytes."""

    async def body(mesh):
        SHARED.close()
        plain = await mesh.plain_client()
        asking = asyncio.ensure_future(mesh.ask(url=inode_of(NAMESPACE), client=plain))
        await asyncio.sleep(0.2)
        assert not asking.done()
        await mesh.send(plain, NAMESPACE)
        await mesh.health(plain)
        assert (await asking).mechanism.parameters["inodeURL"] == inode_of(NAMESPACE)

    scenario(body)


def test_without_its_descriptor_a_request_ends_with_its_deadline():
    """An inode of which no descriptor comes fails the Request at its deadline, and nothing stays open."""

    async def body(mesh):
        SHARED.close()
        plain = await mesh.plain_client()
        before = counted()
        with pytest.raises(TimedOut):
            await mesh.ask(url="inode://4/4026539999", seconds=0.3, client=plain)
        await asyncio.sleep(0.1)
        assert counted() == before

    scenario(body)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda path: path.write_text("x"), "a regular file"),
        (lambda path: path.mkdir(), "a directory"),
        (os.mkfifo, "a pipe"),
    ],
)
def test_the_wrong_kind_of_file_is_refused(make, kind, tmp_path):
    """What is no network namespace is named as what it is, never opened, and let go at once."""

    async def body(mesh):
        plain = await mesh.plain_client()
        make(tmp_path / "x")
        before = counted()
        url = await mesh.send(plain, tmp_path / "x")
        expected = f"leads to {kind}, and a network namespace was expected"
        with pytest.raises(Invalid, match=f"KERNEL mechanism of connection .* {expected}"):
            await mesh.ask(url=url, client=plain)
        assert counted() == before

    scenario(body)


def test_another_kind_of_namespace_is_refused():
    """A mount namespace is no network namespace."""

    async def body(mesh):
        plain = await mesh.plain_client()
        url = await mesh.send(plain, "/proc/self/ns/mnt")
        with pytest.raises(Invalid, match="another namespace"):
            await mesh.ask(url=url, client=plain)

    scenario(body)


@pytest.mark.parametrize("url", ["inode://1", "inode://a/b", "inode://-1/2", "inode://1/2/3"])
def test_an_inode_that_is_none_is_refused(url):
    """A malformed URL is an error of the caller's, at once."""

    async def body(mesh):
        plain = await mesh.plain_client()
        with pytest.raises(Invalid, match="not of the form inode://DEV/INO"):
            await mesh.ask(url=url, client=plain)

    scenario(body)


def test_refused_requests_leave_nothing_open():
    """The endpoint says no, ten times: every hop has let go of what it received."""

    async def body(mesh):
        held = counted()
        mesh.fault.times = 10
        for _ in range(10):
            with pytest.raises(MeshError, match="the endpoint says no"):
                await mesh.ask()
        assert counted() == held
        mesh.fault.times, mesh.fault.behind = 10, True
        for _ in range(10):
            with pytest.raises(MeshError, match="the endpoint says no"):
                await mesh.ask()
        assert counted() == held

    scenario(body)


def test_a_failed_refresh_keeps_what_the_wire_needs():
    """A refresh that is refused leaves the wire and its files; Close takes both away."""

    async def body(mesh):
        await mesh.ask()
        held = counted()
        mesh.fault.times = 1
        with pytest.raises(MeshError):
            await mesh.ask()
        assert counted() == held
        assert len(mesh.datapath.kernel.wires()) == 1
        await mesh.close()
        assert mesh.datapath.kernel.wires() == {}

    scenario(body)


def test_cancelled_requests_leave_nothing_open():
    """A client that leaves in the middle, wherever that is, leaves nothing behind."""

    async def body(mesh):
        held = counted()
        for turns in range(1, 60, 3):
            asking = asyncio.ensure_future(mesh.ask(turns, seconds=1.5))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await mesh.close(turns)
        # what one hop had granted when the one before it left ends with the tokens
        await mesh.settled(lambda: counted() == held)

    scenario(body, lifetime=2.5)


def test_a_client_that_dies_lets_go():
    """A client whose connection breaks while its Request waits for a descriptor leaves nothing open."""

    async def body(mesh):
        held = counted()
        async with AsyncExitStack() as stack:
            plain = await mesh.plain_client(stack)
            asking = asyncio.ensure_future(mesh.ask(url="inode://4/4026539999", client=plain))
            await asyncio.sleep(0.1)
            await mesh.pool_of(plain).aclose()
            with pytest.raises(MeshError):
                await asking
        await mesh.settled(lambda: counted() == held)

    scenario(body)


def test_a_flood_is_bounded(tmp_path):
    """A peer that sends descriptors nobody asked for keeps few of them open, and others are served."""

    async def body(mesh):
        held = counted()
        plain = await mesh.plain_client()
        for number in range(1000):
            path = tmp_path / str(number)
            path.touch()
            await mesh.send(plain, path)
        await mesh.health(plain)
        await mesh.settled(lambda: len(SHARED) <= 300)
        assert counted() == held
        await asyncio.gather(*(mesh.ask(number) for number in range(2, 12)))

    scenario(body)


def test_one_request_cannot_hold_everything(tmp_path):
    """A Request that names very many files is refused, and its files are let go."""

    async def body(mesh):
        held = counted()
        plain = await mesh.plain_client()
        request = mesh.wanted()
        for number in range(40):
            os_path = tmp_path / str(number)
            await mesh.listen_at(os_path)
            mechanism = request.mechanism_preferences.add(cls="LOCAL", type="MEMIF")
            mechanism.parameters["inodeURL"] = await mesh.send(plain, os_path)
        del request.mechanism_preferences[0]
        with pytest.raises(MeshError, match="32 files are held"):
            await plain.request(OURS.within(5), request)
        assert counted() == held

    scenario(body)


def test_an_endpoint_that_comes_back_is_found_anew():
    """An endpoint of the same name on a new socket is reached there; the old socket is let go."""

    async def body(mesh):
        async with AsyncExitStack() as stack:
            await mesh.start_endpoint("other", stack)
            held = counted()
            await mesh.settled(lambda: counted() == held)
        async with AsyncExitStack() as stack:
            await mesh.start_endpoint("other", stack)
            request = mesh.wanted(3)
            request.connection.network_service_endpoint_name = "other"
            answer = await mesh.nsc.request(OURS.within(5), request)
            assert answer.network_service_endpoint_name == "other"
            await mesh.close(3)

    scenario(body)


def test_unregister_lets_go():
    """An endpoint that unregisters leaves no descriptor at the manager, nor at the forwarder."""

    async def body(mesh):
        await mesh.ask()
        await mesh.close()
        held = counted()
        async with AsyncExitStack() as stack:
            await mesh.start_endpoint("other", stack)
            await mesh.settled(lambda: counted() > held)
        await mesh.settled(lambda: counted() == held)

    scenario(body)


def test_a_wire_outlives_its_endpoints_registration():
    """A connection holds the way to its endpoint: Close gets there after the endpoint has unregistered."""

    async def body(mesh):
        await mesh.ask()
        await mesh.register.unregister(OURS.within(5), NetworkServiceEndpoint(name="nse"))
        assert mesh.watch.closed == []
        await mesh.close()
        assert len(mesh.watch.closed) == 1

    scenario(body)


def test_a_registration_by_hand(tmp_path):
    """Register by inode is answered with the inode, again without a descriptor; a Find brings one along."""

    async def body(mesh):
        plain = await mesh.registrant()
        await mesh.listen_at(tmp_path / "socket")
        url = await mesh.send(plain, tmp_path / "socket")
        entry = NetworkServiceEndpoint(name="by-hand", network_service_names=["x"], url=url)
        assert (await plain.register(OURS.within(5), entry)).url == url
        SHARED.close()
        assert (await plain.register(OURS.within(1), entry)).url == url
        query = NetworkServiceEndpointQuery(network_service_endpoint=NetworkServiceEndpoint(name="by-hand"))
        found = [item async for item in plain.find(OURS.within(1), query)]
        assert [item.network_service_endpoint.url for item in found] == [url]
        dev, ino = (int(number) for number in url.removeprefix("inode://").split("/"))
        os.close(await plain.passing.take(dev, ino, None))
        await plain.unregister(OURS.within(1), entry)

    scenario(body)


def test_registrations_of_the_wrong_kind(tmp_path):
    """A file that is no socket, a socket of the manager's own, and an inode that never comes are refused."""

    async def body(mesh):
        plain = await mesh.registrant()
        (tmp_path / "x").touch()
        held = counted()
        url = await mesh.send(plain, tmp_path / "x")
        for wrong, kind, text in (
            (url, Invalid, "socket of endpoint a leads to a regular file, and a socket was expected"),
            ("unix:///proc/self/fd/7", Invalid, "would mean a socket of this process"),
            (f"unix:///proc/{os.getpid()}/fd/7", Invalid, "would mean a socket of this process"),
            ("inode://1", Invalid, "not of the form"),
            ("inode://4/1", TimedOut, "Register"),
        ):
            entry = NetworkServiceEndpoint(name="a", network_service_names=["x"], url=wrong)
            with pytest.raises(kind, match=text):
                await plain.register(OURS.within(0.3), entry)
        assert counted() == held

    scenario(body)


def test_paths_of_shared_folders_register_as_they_are(tmp_path):
    """An endpoint without descriptors registers a path that all see, and gets it back."""

    async def body(mesh):
        plain = await mesh.registrant()
        url = f"unix://{tmp_path}/shared.sock"
        entry = NetworkServiceEndpoint(name="a", network_service_names=["x"], url=url)
        held = counted()
        assert (await plain.register(OURS.within(1), entry)).url == url
        assert counted() == held

    scenario(body)


def test_very_many_endpoints_are_found(tmp_path):
    """Four hundred sockets come with one Find, each with its own descriptor."""

    async def body(mesh):
        plain = await mesh.registrant()
        labels = {"many": NetworkServiceLabels()}
        for number in range(400):
            await mesh.listen_at(tmp_path / str(number))
            entry = NetworkServiceEndpoint(
                name=f"e{number}", network_service_names=["many"], network_service_labels=labels
            )
            entry.url = await mesh.send(plain, tmp_path / str(number))
            await plain.register(OURS.within(5), entry)
        SHARED.close()
        query = NetworkServiceEndpointQuery()
        query.network_service_endpoint.network_service_names.append("many")
        finder = await mesh.finder()
        found = [item.network_service_endpoint async for item in finder.find(Call().within(10), query)]
        assert len(found) == 400
        for endpoint in found:
            path = endpoint.url.removeprefix("unix://")
            assert Path(path).samefile(tmp_path / endpoint.name[1:])

    scenario(body)


def test_a_refusal_of_the_registry_lets_go(tmp_path):
    """A Register that the registry does not take leaves the manager what it had: nothing, or the socket."""

    async def body(mesh):
        plain = await mesh.registrant()
        await mesh.listen_at(tmp_path / "socket")
        mesh.registry_fault.times = 1
        entry = NetworkServiceEndpoint(name="a", network_service_names=["x"])
        entry.url = await mesh.send(plain, tmp_path / "socket")
        with pytest.raises(MeshError, match="the registry says no"):
            await plain.register(OURS.within(1), entry)
        assert not holds(tmp_path / "socket")
        await plain.register(OURS.within(1), entry)
        assert holds(tmp_path / "socket")
        mesh.registry_fault.times = 1
        with pytest.raises(MeshError, match="the registry says no"):
            await plain.register(OURS.within(1), entry)
        assert holds(tmp_path / "socket")

    scenario(body)
