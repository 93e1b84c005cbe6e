"""What ``nsm up`` and ``nsm join`` say of the forwarders of this host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from nsmesh.cli.quantities import forwarders, labels, mechanisms
from nsmesh.core.errors import Conflict, Invalid, NotFound

if TYPE_CHECKING:
    from nsmesh.standalone.forwarder_wishes import ForwarderWishes
    from nsmesh.standalone.paths import MeshPaths

F = TypeVar("F", bound=Callable[..., Any])
_DEFAULT = click.core.ParameterSource.DEFAULT


class _MayBeEmpty(click.Path):
    """A path, or nothing: so an option takes back what an earlier command said."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(value, param, ctx) if value else ""


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
        default="",
        type=_MayBeEmpty(exists=True, dir_okay=False, resolve_path=True),
        help="What leads to VLANs outside of the mesh: interfaces, bridges (NSM_DEVICE_SELECTOR_FILE).",
    ),
    click.option(
        "--tunnels-apart/--no-tunnels-apart",
        default=False,
        help="Tunnels end in the node, out of the workloads' reach (NSM_TUNNELS_APART).",
    ),
    click.option(
        "--labels",
        metavar="LABELS",
        default="",
        callback=labels,
        help="Labels of this host's forwarders, such as zone=a,rack=7 (NSM_LABELS).",
    ),
    click.option(
        "--switch",
        metavar="SOCKET",
        default="",
        help="Database of an Open vSwitch of this host to use: unix:/run/openvswitch/db.sock.",
    ),
)


def forwarder_options(command: F) -> F:
    """Give a command these options."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Take the options of forwarders out of those of a command; return those that stand on its line."""
    from nsmesh.standalone.forwarder_wishes import NAMES  # noqa: PLC0415 - other commands can do without

    source = click.get_current_context().get_parameter_source
    taken = {name: options.pop(name) for name in NAMES}
    return {name: value for name, value in taken.items() if source(name) is not _DEFAULT}


def wishes(paths: MeshPaths, told: Mapping[str, Any], *, among_hosts: bool) -> ForwarderWishes:
    """Return what the forwarders are to be like; raises NotFound where this host cannot have it so.

    A host among others keeps what it was told when it came up last, and ``told`` changes that.
    """
    from nsmesh.standalone.forwarder_wishes import SWITCH, ForwarderWishes  # noqa: PLC0415 - likewise

    kept = ForwarderWishes.load(paths.forwarders) if among_hosts else ForwarderWishes()
    found = kept.with_options({"switch": os.environ[SWITCH], **told} if os.environ.get(SWITCH) else told)
    found.check()
    if found.switch:
        _check_shared(found)
    else:
        _check_switch(found.forwarders)
    return found


def arguments(told: Mapping[str, Any]) -> list[str]:
    """Return the options that say the same to the daemon."""
    found = []
    for name, value in told.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            found.append(f"--{option}" if value else f"--no-{option}")
        else:
            found.append(f"--{option}={_text(value)}")
    return found


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = [f"{name}={text}" for name, text in value.items()]
    return value if isinstance(value, str) else ",".join(value)


def check_up(paths: MeshPaths, told: Mapping[str, Any]) -> None:
    """Raise Conflict where the forwarders of a mesh that is up are not as these options say."""
    from nsmesh.standalone.forwarder_wishes import ForwarderWishes  # noqa: PLC0415 - likewise

    found = ForwarderWishes.load(paths.forwarders)
    for name, value in told.items():
        here = getattr(found, name)
        if here != value:
            has = f"with {arguments({name: here})[0]}" if here else f"without --{name.replace('_', '-')}"
            raise Conflict(
                f"the mesh {paths.mesh} is up already, {has}",
                remedy=f"take it down first: nsm --mesh {paths.mesh} down",
            )


def _check_switch(kinds: tuple[str, ...]) -> None:
    """Raise NotFound where a node is to have an Open vSwitch, and this host has none to start."""
    if "ovs" in kinds:
        from nsmesh.datapath.ovs_programs import PACKAGE, lacks_switch  # noqa: PLC0415 - seldom

        if why := lacks_switch():
            raise NotFound(f"--forwarders has ovs, and {why}", remedy=f"apt-get install {PACKAGE}")


def _check_shared(found: ForwarderWishes) -> None:
    """Raise a MeshError where the switch of somebody else that is to be used is not there, or of no use."""
    from nsmesh.datapath.ovs_shared import USER_SPACE  # noqa: PLC0415 - seldom
    from nsmesh.datapath.ovs_there import check, path_of  # noqa: PLC0415 - likewise

    if "ovs" not in found.forwarders:
        raise Invalid("--switch is for forwarders with ovs", remedy="add --forwarders linux,ovs, or ovs")
    asyncio.run(check(path_of(found.switch), os.environ.get("NSM_DATAPATH_TYPE", USER_SPACE)))
