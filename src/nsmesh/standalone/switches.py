"""The Open vSwitches of a mesh's nodes: each lives in a network namespace of its own, apart from its node's.

Its devices have the same names in every switch, so two meshes of one host could not stand side by side
else; and what its daemons leave when they are killed goes with the namespace. A switch of somebody else's
lives where it lives, and the mesh has a bridge there.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from nsmesh.datapath.ovs_own import OwnSwitch
from nsmesh.datapath.ovs_shared import SHARED, SharedSwitch
from nsmesh.datapath.ovs_switch import BRIDGE
from nsmesh.datapath.ovs_switches import Switches as SwitchesOfNode
from nsmesh.datapath.ovs_there import path_of
from nsmesh.standalone.children import Children
from nsmesh.standalone.nodes import NodeForwarder
from nsmesh.standalone.paths import MeshPaths
from nsmesh.standalone.spaces import delete_namespace, own_namespace


class Switches:
    """Makes their namespaces, and takes switches and namespaces away.

    ``database``: of somebody else's switch, which is used instead; empty: each node has one of its own.
    """

    def __init__(self, paths: MeshPaths, children: Children, database: str = "") -> None:
        self._paths = paths
        self._children = children
        self._database = database
        self._made: dict[tuple[str, ...], SwitchesOfNode] = {}

    async def make(self, forwarder: NodeForwarder) -> tuple[str, str]:
        """Return the paths of the namespaces of a forwarder's first switch: its own, and of ends in advance.

        The first one is empty where the switch is somebody else's: it is to live where the forwarder does.

        Those of a killed mesh are gone on with. The forwarder starts the switch, and others with their
        namespaces when it needs them: their names are kept here already.
        """
        name, ends = self._paths.netns(forwarder.space), self._paths.netns(forwarder.ends)
        if self._database:
            place = await own_namespace(self._children, ends)
            self._made[(ends,)] = SwitchesOfNode(self._shared(forwarder, place))
            return "", place
        path = await own_namespace(self._children, name)
        place = await own_namespace(self._children, ends)
        more = sorted(set(map(self._paths.netns, forwarder.spaces)) - {name, ends})
        for one in more:
            self._children.add_namespace(one)
        first = OwnSwitch(Path(forwarder.switch), path, ends=place)
        self._made[name, ends, *more] = SwitchesOfNode(first)
        return path, place

    def _shared(self, forwarder: NodeForwarder, place: str) -> SharedSwitch:
        return SharedSwitch(
            Path(forwarder.switch) / SHARED,
            bridge=os.environ.get("NSM_BRIDGE_NAME", BRIDGE),
            database=path_of(self._database),
            owner=self._paths.owner_of(forwarder.name),
            ends=place,
        )

    async def refused(self, wires: Collection[str]) -> Counter[str]:
        """Return what the switches themselves have refused of wires (ids); who does not answer has none."""
        total: Counter[str] = Counter()
        for made in self._made.values():
            switches = SwitchesOfNode(made.first)  # as many as there are now
            for counts in (await switches.refused(wires)).values():
                total += counts
            for switch in switches:
                switch.ports.forget()  # the forwarder has others made, and is not the only one who asks
            await switches.close()
        return total

    async def aclose(self) -> None:
        """End the switches by the book, and delete their namespaces."""
        while self._made:
            names, switches = self._made.popitem()
            try:
                await switches.stop()
            finally:
                for name in names:
                    await delete_namespace(name)
                    self._children.drop_namespace(name)
