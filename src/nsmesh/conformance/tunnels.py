"""Wires to other nodes: what a forwarder chooses for a tunnel that another one asks for."""

from __future__ import annotations

from nsmesh.conformance.case import Group, Skipped, expect
from nsmesh.conformance.provider import Mechanisms, providing
from nsmesh.conformance.world import World
from nsmesh.core.tunnelling import DST_IP, SRC_IP
from nsmesh.mechanisms.kernel import OWN_NAMESPACE, Kernel
from nsmesh.mechanisms.vxlan import VNI, Vxlan
from nsmesh.model.messages import LOCAL, REMOTE, VXLAN, Mechanism

GROUP = Group("tunnels")

BELOW, OURS, ABOVE = "192.0.2.4", "192.0.2.5", "192.0.2.6"
_SERVED = Mechanisms((Kernel(), Vxlan(OURS, link_mtu=lambda: 1500)), (Kernel(inode_url=OWN_NAMESPACE),))


async def _tunnel(world: World, source: str, **parameters: str) -> Mechanism:
    if not world.scratch:
        raise Skipped("the forwarder that would answer is the tester's own")
    async with providing(world, mechanisms=_SERVED) as provider:
        request = world.wanted("tunnel", provider.service)
        offer = Mechanism(
            cls=REMOTE, type=VXLAN, parameters={SRC_IP: source, "src_port": "4789", **parameters}
        )
        request.ClearField("mechanism_preferences")
        request.mechanism_preferences.append(offer)
        answer = await provider.ask(request)
        await (await world.nsmgr()).close(answer)
        return answer.mechanism


def _seen(mechanism: Mechanism) -> str:
    parameters = mechanism.parameters
    return f"{mechanism.cls} {mechanism.type}, vni {parameters.get(VNI)}, dst_ip {parameters.get(DST_IP)}"


@GROUP.case("vni-even", "2.2", "an even VNI where src_ip is below dst_ip")
async def even(world: World) -> str:
    """Ask from a lower address."""
    chosen = await _tunnel(world, BELOW)
    return expect(int(chosen.parameters[VNI]) % 2 == 0 and chosen.cls != LOCAL, _seen(chosen))


@GROUP.case("vni-odd", "2.2", "an odd VNI where src_ip is above dst_ip")
async def odd(world: World) -> str:
    """Ask from a higher address."""
    chosen = await _tunnel(world, ABOVE)
    return expect(int(chosen.parameters[VNI]) % 2 == 1, _seen(chosen))


@GROUP.case("vni-kept", "2.2", "a VNI that is there already is kept")
async def kept(world: World) -> str:
    """Ask with a VNI of the wrong parity."""
    chosen = await _tunnel(world, BELOW, vni="4711")
    return expect(chosen.parameters[VNI] == "4711", _seen(chosen))


@GROUP.case("ends", "2.2", "dst_ip and dst_port of the serving forwarder, src_ip as it was asked")
async def ends(world: World) -> str:
    """Look at both ends."""
    chosen = await _tunnel(world, BELOW)
    right = (chosen.parameters[SRC_IP], chosen.parameters[DST_IP]) == (BELOW, OURS)
    return expect(right and chosen.parameters.get("dst_port") == "4789", _seen(chosen))
