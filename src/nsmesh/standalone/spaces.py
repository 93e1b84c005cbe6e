"""Namespaces and links that a mesh makes for its workloads and endpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nsmesh.core.errors import Invalid, NotFound
from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort, Route
from nsmesh.datapath.links import silence
from nsmesh.datapath.linux import LinuxDatapath
from nsmesh.model.manifest import Link
from nsmesh.model.names import nearest
from nsmesh.standalone.children import Children
from nsmesh.standalone.identity import Identities
from nsmesh.standalone.leftovers import end_inside
from nsmesh.standalone.paths import MeshPaths


def existing(given: str = "", pid: int = 0) -> str:
    """Return the path of a namespace that a user names: by path, by name of ``ip netns``, or by pid.

    Raises NotFound or Invalid, naming it.
    """
    if pid:
        path = netns.of_pid(pid)
        if not Path(path).exists():
            raise NotFound(f"there is no process {pid}", remedy="check the pid; it may have ended")
        return path
    path = given if given.startswith("/") else f"{netns.RUN_NETNS}/{given}"
    if not Path(path).exists():
        names = [Path(item).name for item in netns.named()]
        near = nearest(Path(given).name, names)
        listed = f"there are: {', '.join(names[:10]) or 'none with a name'}"
        remedy = f"did you mean {near}?" if near else listed
        raise NotFound(f"there is no network namespace {given}", remedy=remedy)
    try:
        os.close(netns.open_netns(path))
        netns.call_in(path, lambda: None)
    except Invalid as error:
        raise Invalid(
            f"{path} is no network namespace", remedy="give a name of `ip netns`, or a path"
        ) from error
    return path


@dataclass(frozen=True, slots=True)
class Space:
    """Where a workload or endpoint lives; ``made`` says whether it is ours to delete."""

    path: str
    made: bool


async def own_namespace(children: Children, name: str) -> str:
    """Return the path of a namespace of ours: the very one that a killed mesh had, else a new one."""
    if children.same_namespace(name):
        return f"{netns.RUN_NETNS}/{name}"
    children.add_namespace(name)
    await delete_namespace(name)  # what a dead mesh left under our own name
    path = netns.create(name)
    children.prove_namespace(name)
    return path


async def delete_namespace(name: str) -> None:
    """Delete a namespace of ours by its name, and what still runs in it."""
    path = f"{netns.RUN_NETNS}/{name}"
    if os.path.lexists(path):
        await end_inside(path)
        silence(path)  # whoever holds a descriptor of it keeps it alive, and its wires must not look so
        netns.delete(name)


class Spaces:
    """Makes, finds and deletes them; knows each by its owner's name."""

    def __init__(self, paths: MeshPaths, children: Children, identities: Identities) -> None:
        self._paths = paths
        self._children = children
        self._identities = identities
        self.known: dict[str, Space] = {}
        self.links: dict[str, Link] = {}
        self._datapath = LinuxDatapath(owner=paths.link_owner)

    async def make(self, owner: str, given: str = "", pid: int = 0) -> Space:
        """Return the namespace of ``owner``: the given one, or a new one of its own."""
        space = self.known.get(owner)
        if space is not None:
            return space
        if given or pid:
            space = Space(existing(given, pid), made=False)
            self._children.add_place(space.path)
        else:
            space = Space(await own_namespace(self._children, self._paths.netns(owner)), made=True)
        self.known[owner] = space
        if space.made:  # who shares a namespace with others shares their identity
            self._identities.add(owner, space.path)
        return space

    def of(self, owner: str) -> Space:
        """Return the namespace of ``owner``; raises NotFound."""
        space = self.known.get(owner)
        if space is None:
            raise NotFound(
                f"there is no workload or endpoint {owner}", remedy="apply it first, or in the same file"
            )
        return space

    async def drop(self, owner: str) -> None:
        """Delete the namespace of ``owner``, and what still runs in it, if it is ours."""
        space = self.known.pop(owner, None)
        self._identities.drop(owner)
        if space is None:
            return
        if space.made:
            name = self._paths.netns(owner)
            await delete_namespace(name)
            self._children.drop_namespace(name)
        elif all(other.path != space.path for other in self.known.values()):
            self._children.drop_place(space.path)

    async def link(self, link: Link) -> None:
        """Make a link as it is described; idempotent."""
        ports = [
            KernelPort(
                netns=self.of(end.of).path,
                name=end.interface,
                mtu=link.mtu or 0,
                addresses=tuple(end.addresses),
                routes=tuple(Route(route.prefix, route.via) for route in end.routes),
            )
            for end in link.ends
        ]
        await self._datapath.apply(CrossConnect(f"link:{link.name}", ports[0], ports[1]))
        self.links[link.name] = link

    async def unlink(self, name: str) -> None:
        """Remove a link."""
        if self.links.pop(name, None) is not None:
            await self._datapath.remove(f"link:{name}")
            await self._datapath.drain()

    async def aclose(self) -> None:
        """Delete all that is ours."""
        for name in list(self.links):
            await self.unlink(name)
        await self._datapath.aclose()
        for owner in list(self.known):
            await self.drop(owner)
