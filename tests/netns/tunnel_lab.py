"""For tests of tunnels of any kind: the two halves of a wire, as two forwarders agree on them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import vxlan_lab

from nsmesh.datapath.abilities import lacks
from nsmesh.datapath.base import CrossConnect
from nsmesh.mechanisms.geneve import Geneve
from nsmesh.mechanisms.gre import Gre
from nsmesh.mechanisms.srv6 import Srv6
from nsmesh.mechanisms.vxlan import Vxlan
from nsmesh.mechanisms.wireguard import Wireguard
from nsmesh.model.messages import Connection
from nsmesh.model.wiring import Side

KINDS = {"VXLAN": Vxlan, "GENEVE": Geneve, "GRE": Gre, "WIREGUARD": Wireguard, "SRV6": Srv6}


def able(kind: str) -> None:
    """Skip a test where the kernel has no such tunnels."""
    if why := lacks(kind):
        pytest.skip(f"{kind}: {why}")


def plugins(kind: str, family: int = 4, mtu: int = 1500, *, framed=()):
    """Return the mechanism of each node; ``framed``: the numbers of those that take frames alone."""
    special = {
        "WIREGUARD": lambda number: {"secret": bytes([number]) * 32},
        "GRE": lambda number: {"framed": number in framed},
    }
    more = [special.get(kind, lambda _: {})(number) for number in (1, 2)]
    made = (
        KINDS[kind](ip, link_mtu=lambda: mtu, **own)
        for ip, own in zip(vxlan_lab.UNDERLAY[family], more, strict=True)
    )
    return tuple(made)


def wires(found, kind, *, family=4, payload="IP", number=1, near=None, far=None, mtu=1500):
    """Negotiate a tunnel and return its halves; ``near`` and ``far``: the mechanisms of the nodes."""
    one, other = plugins(kind, family, mtu)
    near, far = near or one, far or other
    asking, serving = (
        Connection(id=f"near-{number}", payload=payload),
        Connection(id=f"far-{number}", payload=payload),
    )
    agreed = far.accept(near.offer(asking), serving)
    agreed.parameters.update(src_hw_addr=vxlan_lab.NEAR_MAC, dst_hw_addr=vxlan_lab.FAR_MAC)
    out, back = near.port(asking, agreed, Side.ENDPOINT), far.port(serving, agreed, Side.CLIENT)
    first, second = vxlan_lab.wires(found, number=number, mtu=out.mtu, family=family)
    a, b = first.a, second.b
    if not out.frames:
        a, b = replace(a, mac="", neighbours=()), replace(b, mac="", neighbours=())
    return (
        CrossConnect(f"near-{number}", a, out, payload),
        CrossConnect(f"far-{number}", back, b, payload),
    )
