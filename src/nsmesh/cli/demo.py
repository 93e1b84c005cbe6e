"""``nsm demo``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from pathlib import Path

import click

from nsmesh.api import control_pb2
from nsmesh.cli import control
from nsmesh.cli.context import Context, require_root, run, tell
from nsmesh.core.errors import MeshError
from nsmesh.endpoints import wireguard_keys
from nsmesh.model import control as api
from nsmesh.standalone import launch, leftovers
from nsmesh.standalone.demo import Demo, Say, scenario, scenarios
from nsmesh.standalone.demo_claim import Claim
from nsmesh.standalone.lock import holder
from nsmesh.standalone.paths import MeshPaths

MESH = "demo"


@click.command()
@click.argument("name", required=False, default="secure-intranet")
@click.option("--keep", is_flag=True, help="Leave the mesh up afterwards, to look at.")
@click.option("--list", "listing", is_flag=True, help="List the demos.")
@click.option(
    "--separate", is_flag=True, help="Run manager, forwarder and registry as processes of their own."
)
@click.pass_obj
def demo(context: Context, name: str, *, keep: bool, listing: bool, separate: bool) -> None:
    """Run a scenario for real, show it and prove it, then clean up.

    A demo has a mesh of its own, "demo", and first removes what an earlier one left in it.

    secure-intranet: a client's wire to a corporate network, through a firewall and a VPN gateway.
    """
    if listing:
        for known, folder in scenarios().items():
            click.echo(f"{known}  {(folder / 'demo.txt').read_text().strip()}")
        return
    require_root("a demo")
    folder = scenario(name)
    own = Context(context.mesh or MESH, context.run_dir, context.state_dir, context.verbose, context.quiet)
    claim = Claim(own.paths)
    left = claim.take()
    try:
        run(_run(own, folder, again=left, separate=separate))
    finally:
        if not keep and claim.holds:
            run(_clean(own))
        claim.release()
    if keep:
        own.say(f"The mesh is still up: nsm --mesh {own.paths.mesh} status; end it with ... down --purge")


async def _run(context: Context, folder: Path, *, again: bool, separate: bool) -> None:
    start = time.monotonic()

    def say(text: str) -> None:
        context.say(f"{time.monotonic() - start:6.2f} s  {text}")

    async def apply(path: Path) -> None:
        manifest = control_pb2.Manifest(text=path.read_text(), source=path.name, directory=str(path.parent))
        request = control_pb2.ApplyRequest(manifests=[manifest], wait=True)
        async with context.control() as client:
            async for body in client.stream(api.APPLY, request.SerializeToString()):
                step = control_pb2.Step.FromString(body)
                if step.failed:
                    raise MeshError(step.text, remedy=step.remedy)
                say(step.text)

    paths = context.paths
    if again:
        await _take_down(context)
        paths.forget()
        say("what an earlier demo had left is removed")
    paths.make()
    for name in ("gateway", "corporate"):
        wireguard_keys.ensure(paths.files / f"{name}.key")
    arguments = ["--mesh", paths.mesh, "--run-dir", str(paths.run), "--state-dir", str(paths.state)]
    arguments += ["up", "--foreground"] + (["--separate"] if separate else [])
    pid = await launch.launch(paths, arguments)
    say(f"mesh {paths.mesh} is up (pid {pid})")
    demo = Demo(paths, folder, say, apply)
    await apply(folder / "service.yaml")
    await apply(folder / "mesh.yaml")
    await demo.first_ping()
    say(f"first ping answered {time.monotonic() - start:.2f} s after start")
    await demo.through_the_firewall()
    edited = _without_firewall(paths, folder)
    say("the firewall is taken out of the service's matches, by editing its YAML")
    await apply(edited)
    await demo.without_the_firewall()
    await _show_path(context, say)
    demo.verdict()
    say("all claims hold")


def _without_firewall(paths: MeshPaths, folder: Path) -> Path:
    """Edit the service as a person would: the first match goes, the second leads to the gateway."""
    text = (folder / "service.yaml").read_text()
    first = re.compile(
        r"    - match:\n      sourceSelector:\n        app: firewall\n.*?(?=    - match:)", re.DOTALL
    )
    edited = first.sub("", text).replace("app: firewall", "app: vpn-gateway")
    path = paths.files / "service.yaml"
    path.write_text(edited)
    return path


async def _show_path(context: Context, say: Say) -> None:
    async with context.control() as client:
        for row in await control.rows(client, "connections"):
            say(f"path of {row['id']} now: {' -> '.join(row['path'])}")


async def _clean(context: Context) -> None:
    """Take everything down, however far the demo came."""
    await _take_down(context)
    context.paths.purge()
    context.say("cleaned up: no namespace, interface, process or file is left")


async def _take_down(context: Context) -> None:
    """End the mesh's daemon if there is one, and take away whatever it made."""
    paths = context.paths
    found = holder(paths.lock)
    if found is not None and found.mesh == paths.mesh:
        try:
            async with context.control() as client:
                async for _ in client.stream(api.DOWN, control_pb2.Empty().SerializeToString()):
                    pass
        except MeshError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGTERM)
        try:
            await launch.wait_gone(paths, found.pid)
        except MeshError as error:
            tell(error)
    await leftovers.clear(paths)
