"""For tests of bridges of others: a switch with one that leads out, drivers that use it, and pods."""

import asyncio
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import datapath_lab as lab
import vlan_lab
from their_switch import OUT, TheirSwitch

from nsmesh.core.errors import Unavailable
from nsmesh.model.tunnels import BridgePort


@dataclass
class Ground:
    """``switch``: theirs; ``found``: its place, as :mod:`vlan_lab` has them; ``folder``: for ours."""

    switch: TheirSwitch
    found: vlan_lab.Place
    folder: Path
    kind: str

    def make(self, **given):
        """Return a driver of our forwarder."""
        return self.switch.driver(self.folder, self.found.pods, kind=self.kind, **given)

    def wire(self, pod, vlan, *, payload="ETHERNET", bridge=OUT, mtu=1500):
        """Return the wire of a pod onto a VLAN of a bridge."""
        wire = vlan_lab.wire(self.found, pod, vlan, payload=payload, mtu=mtu)
        return replace(wire, b=BridgePort(bridge, vlan, mtu, via="gw-1"))


@contextmanager
def ground(tmp_path, *, pods=2, kind="netdev", theirs="", program="ovs-vswitchd"):
    """Yield the place of a test; ``theirs``: the type of their bridge's datapath, where it is not ours."""
    with lab.spaces(4 + pods) as (space, outside, c, d, *inside):
        switch = TheirSwitch(tmp_path / "theirs", space, c, d)
        switch.program = program
        try:
            switch.start().lead_out(outside, kind=theirs or kind)
            yield Ground(switch, vlan_lab.Place(space, outside, tuple(inside)), tmp_path / "ours", kind)
        finally:
            switch.end()


def run(tmp_path, main, **given):
    """Run a test with a driver; at the end the mesh is gone, and the switch is as it was."""

    async def all_of_it(place):
        before = place.switch.everything()
        driver = place.make()
        await main(place, driver)
        for existing in await driver.has():
            with suppress(Unavailable):  # where somebody has deleted our bridge
                await driver.remove(existing.id)
        await driver.switches.stop()
        await driver.aclose()
        async with asyncio.timeout(10):
            while (now := place.switch.everything()) != before:
                assert "nsm" not in now, now
                await asyncio.sleep(0.05)

    with ground(tmp_path, **given) as place:
        asyncio.run(all_of_it(place))
