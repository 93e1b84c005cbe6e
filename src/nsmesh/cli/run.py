"""``nsm run``: one role as a process of its own, configured by NSM's environment variables."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Literal

import click
import structlog

from nsmesh import rpc
from nsmesh.chains.variables import notices
from nsmesh.core import garbage, level_file, logging
from nsmesh.core.ending import hand_over
from nsmesh.core.errors import Invalid
from nsmesh.model.duration import format_duration
from nsmesh.model.settings import Setting, SettingsError, describe, load
from nsmesh.telemetry.running import telemetry

log = structlog.get_logger()


def _settings(cls: type[Any]) -> Any:
    try:
        return load(cls, os.environ)
    except SettingsError as error:
        raise Invalid(
            f"{len(error.lines)} settings cannot be used:\n  " + "\n  ".join(error.lines),
            remedy="correct these variables; see --help",
        ) from error


STARTED = 2.0
"""Seconds after which a role has started."""
PATIENCE = 2.0
"""Seconds that a role gets to begin to wait for its end, once it is told to end while it starts."""


class _Stop(asyncio.Event):
    """Says that a role shall end, and ends one that is still starting, which may wait for others for ever."""

    def __init__(self, role: asyncio.Task[None] | None) -> None:
        super().__init__()
        self._role = role
        self._heeded = False

    async def wait(self) -> Literal[True]:
        """Wait, as each role does once it has started."""
        self._heeded = True
        return await super().wait()

    def tell(self) -> None:
        """Let the role end."""
        self.set()
        asyncio.get_running_loop().call_later(PATIENCE, self._insist)

    def _insist(self) -> None:
        if not self._heeded and self._role is not None:
            log.info("ended while it started")
            self._role.cancel()


def _run(
    role: str,
    settings: Any,
    serve: Callable[[asyncio.Event], Awaitable[None]],
    also: Iterable[str] = (),
) -> None:
    """Run until SIGTERM or SIGINT, or SIGQUIT, after which a successor goes on.

    SIGUSR1 logs everything, SIGUSR2 goes back.

    ``also``: variables that the role reads besides its settings.
    """
    logging.configure(role=role, level=settings.log_level)
    for notice in notices(type(settings), os.environ, also):
        log.warning(notice)

    rpc.take_from_environment(os.environ)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stop = _Stop(asyncio.current_task())

        def succeed() -> None:
            hand_over()
            stop.set()

        loop.add_signal_handler(signal.SIGQUIT, succeed)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.tell)
        loop.call_later(STARTED, garbage.settle)
        async with level_file.followed(settings.log_level_file, settings.log_level) as told:
            loop.add_signal_handler(signal.SIGUSR1, logging.set_level, "TRACE")
            loop.add_signal_handler(signal.SIGUSR2, lambda: logging.set_level(told.level))
            async with telemetry(settings, role):
                await serve(stop)

    with suppress(asyncio.CancelledError):
        asyncio.run(main())


def _default(item: Setting) -> str:
    """Return a default as it would be written."""
    if item.kind == "duration":
        return format_duration(float(item.default))
    if item.kind == "map":
        return item.default.strip("{}").replace("'", "").replace(": ", ":").replace(", ", ",")
    return item.default.lower() if item.kind == "true or false" else item.default


def _epilog(cls: type[Any]) -> str:
    lines = ["\b", "Settings (environment):"]
    for item in describe(cls):
        lines.append(f"  {item.variable} ({item.kind}; default: {_default(item) or '-'})")
        lines.append(f"      {item.help}")
    return "\n".join(lines)


class _Role(click.Command):
    """A role: it is called with its settings, and its help ends with them.

    ``settings``: MODULE:CLASS, below nsmesh. Those of one role are loaded alone, when it runs or is asked for
    help: each class of them takes milliseconds to be made.
    """

    def __init__(self, *arguments: Any, settings: str, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._settings = settings

    def _class(self) -> type[Any]:
        module, _, name = self._settings.partition(":")
        found: type[Any] = getattr(importlib.import_module(f"nsmesh.{module}"), name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        ctx.params["settings"] = _settings(self._class())
        return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.epilog = _epilog(self._class())
        super().format_epilog(ctx, formatter)


@click.group()
def run() -> None:
    """Run one role as a process of its own, configured by NSM_* variables."""
    garbage.wait()


@run.command(cls=_Role, settings="chains.settings:NsmgrSettings")
def nsmgr(settings: Any) -> None:
    """Run the manager of a node."""
    from nsmesh.chains.processes import serve_nsmgr  # noqa: PLC0415 - what one role needs, when it runs

    _run(settings.name, settings, lambda stop: serve_nsmgr(settings, stop))


@run.command(cls=_Role, settings="chains.settings:ForwarderSettings")
def forwarder(settings: Any) -> None:
    """Run the forwarder of a node (kernel wires); needs root."""
    from nsmesh.chains.processes import serve_forwarder  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_forwarder(settings, stop))


@run.command("forwarder-ovs", cls=_Role, settings="chains.settings_ovs:OvsForwarderSettings")
def forwarder_ovs(settings: Any) -> None:
    """Run a forwarder of wires through an Open vSwitch, of its own or of its host; needs root."""
    from nsmesh.chains.processes import serve_ovs_forwarder  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_ovs_forwarder(settings, stop))


@run.command("registry-memory", cls=_Role, settings="chains.settings:RegistrySettings")
def registry_memory(settings: Any) -> None:
    """Run a registry that forgets when it ends."""
    from nsmesh.chains.processes import serve_registry  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_registry(settings, stop, sqlite=False))


@run.command("registry-sqlite", cls=_Role, settings="chains.settings:RegistrySettings")
def registry_sqlite(settings: Any) -> None:
    """Run a registry that keeps what it knows in a file."""
    from nsmesh.chains.processes import serve_registry  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_registry(settings, stop, sqlite=True))


@run.command("registry-k8s", cls=_Role, settings="chains.settings:KubernetesRegistrySettings")
def registry_k8s(settings: Any) -> None:
    """Run a registry that keeps what it knows in its cluster's API server; needs nsmesh[kubernetes]."""
    from nsmesh.chains.processes import serve_kubernetes_registry  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_kubernetes_registry(settings, stop))


@run.command("exclude-prefixes-k8s", cls=_Role, settings="chains.settings_kubernetes:ExcludePrefixesSettings")
def exclude_prefixes_k8s(settings: Any) -> None:
    """Write which addresses the cluster uses, for managers to exclude; needs nsmesh[kubernetes]."""
    from nsmesh.chains.exclude_prefixes import serve_exclude_prefixes  # noqa: PLC0415 - likewise

    _run("exclude-prefixes-k8s", settings, lambda stop: serve_exclude_prefixes(settings, stop))


@run.command(
    "admission-webhook-k8s", cls=_Role, settings="chains.settings_kubernetes:AdmissionWebhookSettings"
)
def admission_webhook_k8s(settings: Any) -> None:
    """Give wires to annotated pods of a cluster: serve its admission webhook; needs nsmesh[kubernetes]."""
    from nsmesh.chains.admission_webhook import serve_admission_webhook  # noqa: PLC0415 - likewise

    _run("admission-webhook-k8s", settings, lambda stop: serve_admission_webhook(settings, stop))


@run.command("node-agent-k8s", cls=_Role, settings="chains.settings_node_agent:NodeAgentSettings")
def node_agent_k8s(settings: Any) -> None:
    """Make the wires of a node's pods that have no client; needs nsmesh[kubernetes]."""
    from nsmesh.chains.node_agent import serve_node_agent  # noqa: PLC0415 - likewise

    _run("node-agent-k8s", settings, lambda stop: serve_node_agent(settings, stop))


@run.command(cls=_Role, settings="chains.settings_nsc:NscSettings")
def nsc(settings: Any) -> None:
    """Run a client: ask for the services of NSM_NETWORK_SERVICES and keep their wires."""
    from nsmesh.chains.processes import serve_nsc  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_nsc(settings, stop))


@run.command("nsc-init", cls=_Role, settings="chains.settings_nsc:NscInitSettings")
def nsc_init(settings: Any) -> None:
    """Run the client of an init container: end with 0 when all wires of NSM_NETWORK_SERVICES are up."""
    from nsmesh.chains.processes import serve_nsc_init  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_nsc_init(settings, stop))


@run.command()
@click.argument("kind", metavar="TYPE")
def nse(kind: str) -> None:
    """Run an endpoint: icmp-responder, firewall, vpn-gateway, remote-vlan, MODULE:CLASS or FILE.py:CLASS."""
    from nsmesh.chains.settings import NSE_SETTINGS, NseSettings  # noqa: PLC0415 - likewise
    from nsmesh.endpoints.options import describe_options  # noqa: PLC0415 - likewise
    from nsmesh.endpoints.run import options_of, serve_endpoint  # noqa: PLC0415 - likewise

    settings = _settings(NSE_SETTINGS.get(kind, NseSettings))
    options = [option.variable for option in describe_options(options_of(kind))]
    _run(settings.name, settings, lambda stop: serve_endpoint(kind, settings, stop), options)


@run.command("identity-authority", cls=_Role, settings="attestation.settings:AuthoritySettings")
def identity_authority(settings: Any) -> None:
    """Run the CA of a Kubernetes cluster that has no SPIRE; needs nsmesh[kubernetes]."""
    from nsmesh.attestation.authority import serve_authority  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_authority(settings, stop))


@run.command("identity-agent", cls=_Role, settings="attestation.settings:AgentSettings")
def identity_agent(settings: Any) -> None:
    """Run the agent of a Kubernetes node: give its pods identities of their own; needs nsmesh[kubernetes]."""
    from nsmesh.attestation.agent import serve_agent  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_agent(settings, stop))


@run.command("node-cleanup", cls=_Role, settings="chains.settings_kubernetes:NodeCleanupSettings")
def node_cleanup(settings: Any) -> None:
    """Take away what an uninstalled mesh has left on a node of Kubernetes; the chart runs it."""
    from nsmesh.chains.node_cleanup import serve_node_cleanup  # noqa: PLC0415 - likewise

    _run(settings.name, settings, lambda stop: serve_node_cleanup(settings, stop))


@run.command("vpn-site")
def vpn_site() -> None:
    """Run the far end of a VPN: a WireGuard peer with a small web server (for demonstrations)."""
    from nsmesh.endpoints.options import read_options  # noqa: PLC0415 - likewise
    from nsmesh.endpoints.vpn_site import VpnSiteOptions  # noqa: PLC0415 - likewise
    from nsmesh.endpoints.vpn_site import run as run_site  # noqa: PLC0415 - likewise

    logging.configure(role="vpn-site")
    asyncio.run(run_site(read_options(VpnSiteOptions, None, os.environ, endpoint="vpn-site")))
