"""The Open vSwitches of a mesh's nodes: each lives in a network namespace of its own, apart from its node's.

Its devices have the same names in every switch, so two meshes of one host could not stand side by side
else; and what its daemons leave when they are killed goes with the namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import structlog

from nsmesh.core.errors import MeshError
from nsmesh.datapath.ovs_switch import Switch
from nsmesh.standalone.children import Children
from nsmesh.standalone.nodes import NodeForwarder
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.spaces import delete_namespace, own_namespace

log = structlog.get_logger()


class Switches:
    """Makes their namespaces, and takes switches and namespaces away."""

    def __init__(self, paths: MeshPaths, children: Children) -> None:
        self._paths = paths
        self._children = children
        self._made: dict[tuple[str, str], Switch] = {}

    async def make(self, forwarder: NodeForwarder) -> tuple[str, str]:
        """Return the paths of the namespaces of a forwarder's switch: its own, and of ends in advance.

        Those of a killed mesh are gone on with.

        The switch itself is started by its forwarder.
        """
        name, ends = self._paths.netns(forwarder.space), self._paths.netns(forwarder.ends)
        path = await own_namespace(self._children, name)
        place = await own_namespace(self._children, ends)
        self._made[name, ends] = Switch(Path(forwarder.switch), path, ends=place)
        return path, place

    async def refused(self, wires: Collection[str]) -> Counter[str]:
        """Return what the switches themselves have refused of wires (ids); who does not answer has none."""
        total: Counter[str] = Counter()
        for switch in self._made.values():
            if not switch.flows.exists():
                continue
            try:
                for counts in (await switch.ports.refused(wires)).values():
                    total += counts
            except MeshError as error:
                log.debug("counters of a switch not read", error=str(error))
            finally:
                switch.ports.forget()  # the forwarder has others made, and is not the only one who asks
                await switch.ports.close()
        return total

    async def aclose(self) -> None:
        """End the switches by the book, and delete their namespaces."""
        while self._made:
            names, switch = self._made.popitem()
            try:
                await switch.stop()
            finally:
                for name in names:
                    await delete_namespace(name)
                    self._children.drop_namespace(name)
