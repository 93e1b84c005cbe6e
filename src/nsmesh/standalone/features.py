"""What this kernel can do, found out by asking it for one of each, in a namespace that is thrown away.

Nothing but the kernel is needed for it. A kernel that lacks a feature says so in one way (``EOPNOTSUPP``, or
``ENOENT`` for a queueing discipline); what else it may say to so bare a request, it says of a feature that
it has.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nsmesh.datapath import netns, trial
from nsmesh.datapath import rtnetlink as rt
from nsmesh.datapath import traffic_control as tc
from nsmesh.datapath.netlink import Batch, Message, Netlink, attribute, request
from nsmesh.datapath.payload_filter import tried

TUN = "/dev/net/tun"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x1, 0x1000
_IFLA_VLAN_ID = 1
_PARENT = 7
"""Index that the parent of a VLAN gets."""

Probe = Callable[[], str]
"""Tries a feature in the namespace of the calling thread; returns why it is not there, or nothing."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature. ``vital``: a mesh of one node needs it; the others are for some things only."""

    name: str
    probe: Probe
    needed_for: str
    remedy: str
    vital: bool = False


def _asked(*messages: Message, lacking: Iterable[int] = (errno.EOPNOTSUPP,)) -> str:
    """Send requests; return the kernel's words where the last one is something that it does not know."""
    batch = Batch()
    for message in messages:
        batch.put(message, message is messages[-1])
    with Netlink() as link:
        for failure in link.send(batch):
            if failure.about and failure.number in lacking:
                return failure.text or os.strerror(failure.number)
    return ""


def _veth() -> str:
    return _asked(trial.new_link("veth"))


def _bridge() -> str:
    return _asked(trial.new_link("bridge"))


def _vxlan() -> str:
    return _asked(trial.new_vxlan())


def _geneve() -> str:
    return _asked(trial.new_geneve())


def _gre() -> str:
    return _asked(trial.new_gre())


def _vlan() -> str:
    tag = attribute(_IFLA_VLAN_ID, struct.pack("=H", 1))
    return _asked(trial.new_link("veth", index=_PARENT), trial.new_link("vlan", tag, parent=_PARENT))


def wireguard() -> str:
    """Return why the kernel has no WireGuard, or nothing; see :data:`Probe`."""
    return _asked(trial.new_link("wireguard"))


def _netem() -> str:
    body = tc.TCMSG.pack(0, trial.LOOPBACK, 0, tc.TC_H_ROOT, 0) + attribute(tc.TCA_KIND, b"netem\0")
    message = request(tc.RTM_NEWQDISC, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body)
    return _asked(message, lacking=(errno.ENOENT, errno.EOPNOTSUPP))


def _mpls() -> str:
    return _asked(trial.new_route(rt.AF_INET, trial.MPLS))


def _seg6() -> str:
    return _asked(trial.new_route(rt.AF_INET6, trial.SEG6))


def _tun() -> str:
    try:
        device = os.open(TUN, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{TUN}: {error.strerror}"
    try:
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("=16sH22x", b"nsm-t", _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        return f"{TUN}: {error.strerror}"
    finally:
        os.close(device)
    return ""


def _module(*names: str) -> str:
    return f"load the kernel module (modprobe {' '.join(names)}), or use a kernel that has it"


FEATURES = (
    Feature("veth", _veth, "every wire", _module("veth"), vital=True),
    Feature("bridge", _bridge, "several nodes on this host (nsm up --nodes)", _module("bridge")),
    Feature("vxlan", _vxlan, "wires between nodes by VXLAN", _module("vxlan")),
    Feature(
        "cls_bpf", tried, "wires that refuse what is not their payload", _module("sch_ingress", "cls_bpf")
    ),
    Feature("netem", _netem, "nsm up --latency, --loss", _module("sch_netem")),
    Feature("tun", _tun, "wireguard-go", _module("tun")),
    Feature("geneve", _geneve, "tunnels by Geneve", _module("geneve")),
    Feature("gre", _gre, "tunnels by GRE", _module("ip_gre")),
    Feature("8021q", _vlan, "tags by VLAN devices; else by programs", _module("8021q")),
    Feature("mpls", _mpls, "MPLS labels", _module("mpls_router", "mpls_iptunnel")),
    Feature("seg6", _seg6, "segment routing (SRv6)", "use a kernel with CONFIG_IPV6_SEG6_LWTUNNEL"),
)
"""What is looked at, in the order in which it is told."""


def lacking(features: Iterable[Feature]) -> Iterator[tuple[Feature, str]]:
    """Yield each feature and why it is not there, or nothing.

    Each is tried in a namespace of its own that is gone afterwards. Raises MeshError where none can be made.
    """
    for feature in features:
        yield feature, in_namespace(feature.probe)


def in_namespace(probe: Probe) -> str:
    """Return what ``probe`` says in a new namespace; raises MeshError where none can be made."""
    with netns.temporary(f"nsm-doctor-{uuid.uuid4().hex[:8]}") as (path,):
        return netns.call_in(path, probe)
