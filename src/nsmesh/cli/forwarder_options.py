"""What ``nsm up`` and ``nsm join`` say of the forwarders of this host."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from nsmesh.cli.quantities import forwarders, labels, mechanisms
from nsmesh.core.errors import NotFound

F = TypeVar("F", bound=Callable[..., Any])

NAMES = ("mechanisms", "device_selector", "tunnels_apart", "labels")
"""Options that are told by environment variables."""

_OPTIONS = (
    click.option(
        "--forwarders",
        metavar="KINDS",
        default="linux",
        callback=forwarders,
        help="Forwarders of each node, side by side: linux,ovs. Matches choose by the label forwarder.",
    ),
    click.option(
        "--mechanisms",
        metavar="TYPES",
        default="",
        callback=mechanisms,
        help="The only mechanisms between nodes, the first ones first: WIREGUARD,VXLAN (NSM_MECHANISMS).",
    ),
    click.option(
        "--device-selector",
        metavar="FILE",
        type=click.Path(exists=True, dir_okay=False, resolve_path=True),
        help="Interfaces that lead to VLANs outside of the mesh (NSM_DEVICE_SELECTOR_FILE).",
    ),
    click.option(
        "--tunnels-apart",
        is_flag=True,
        help="Tunnels end in the node, out of the workloads' reach (NSM_TUNNELS_APART).",
    ),
    click.option(
        "--labels",
        metavar="LABELS",
        default="",
        callback=labels,
        help="Labels of this host's forwarders, such as zone=a,rack=7 (NSM_LABELS).",
    ),
)


def forwarder_options(command: F) -> F:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def arguments(given: Mapping[str, Any]) -> list[str]:
    """Return the options that say the same to the daemon."""
    found = [f"--mechanisms={','.join(given['mechanisms'])}"] if given["mechanisms"] else []
    found += [f"--device-selector={given['device_selector']}"] if given["device_selector"] else []
    found += ["--tunnels-apart"] if given["tunnels_apart"] else []
    labelled = ",".join(f"{name}={value}" for name, value in given["labels"].items())
    return [*found, *([f"--labels={labelled}"] if labelled else [])]


def tell(given: Mapping[str, Any]) -> None:
    """Put what options say into the daemon's environment: its forwarders read it, here and as processes."""
    if given["mechanisms"]:
        os.environ["NSM_MECHANISMS"] = os.environ["NSM_MECHANISM_PRIORITY"] = ",".join(given["mechanisms"])
    if given["device_selector"]:
        os.environ["NSM_DEVICE_SELECTOR_FILE"] = given["device_selector"]
    if given["tunnels_apart"]:
        os.environ["NSM_TUNNELS_APART"] = "true"
    if given["labels"]:
        os.environ["NSM_LABELS"] = ",".join(f"{name}:{value}" for name, value in given["labels"].items())


def check_switch(kinds: tuple[str, ...]) -> None:
    """Raise NotFound where a node is to have an Open vSwitch, and this host has none to start."""
    if "ovs" in kinds:
        from nsmesh.datapath.ovs_programs import PACKAGE, lacks_switch  # noqa: PLC0415 - seldom

        if why := lacks_switch():
            raise NotFound(f"--forwarders has ovs, and {why}", remedy=f"apt-get install {PACKAGE}")
