"""The Open vSwitches of a mesh's nodes: each lives in a network namespace of its own, apart from its node's.

Its devices have the same names in every switch, so two meshes of one host could not stand side by side
else; and what its daemons leave when they are killed goes with the namespace.
"""

from __future__ import annotations

from pathlib import Path

from nsmesh.datapath.ovs_switch import Switch
from nsmesh.standalone.children import Children
from nsmesh.standalone.nodes import NodeForwarder
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.spaces import delete_namespace, own_namespace


class Switches:
    """Makes their namespaces, and takes switches and namespaces away."""

    def __init__(self, paths: MeshPaths, children: Children) -> None:
        self._paths = paths
        self._children = children
        self._made: dict[str, Switch] = {}

    async def make(self, forwarder: NodeForwarder) -> str:
        """Return the path of the namespace of a forwarder's switch; the one of a killed mesh is gone on with.

        The switch itself is started by its forwarder.
        """
        name = self._paths.netns(forwarder.space)
        path = await own_namespace(self._children, name)
        self._made[name] = Switch(Path(forwarder.switch), path)
        return path

    async def aclose(self) -> None:
        """End the switches by the book, and delete their namespaces."""
        while self._made:
            name, switch = self._made.popitem()
            try:
                await switch.stop()
            finally:
                await delete_namespace(name)
                self._children.drop_namespace(name)
