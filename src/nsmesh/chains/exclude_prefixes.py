"""Finds out which addresses a cluster uses, and writes them where its managers read them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from nsmesh.chains.settings_kubernetes import ExcludePrefixesSettings
from nsmesh.core.errors import Invalid, MeshError
from nsmesh.core.pauses import pauses
from nsmesh.core.scope import Scope
from nsmesh.elements.excluded_prefixes import read_prefixes
from nsmesh.kubernetes import prefixes
from nsmesh.kubernetes.client import APPLY, Api, Object, collection, connected
from nsmesh.kubernetes.prefixes import Network, Source
from nsmesh.kubernetes.reflector import FIRST_PAUSE, LONGEST_PAUSE, Reflector

log = structlog.get_logger()

MANAGER = "nsmesh-exclude-prefixes"
"""Field manager of the ConfigMap that is applied."""
FILE, CONFIG_MAP = "file", "config-map"
SETTLE = 0.5
"""Seconds in which changes are gathered before they are written."""
PATIENCE = 10.0
"""Seconds after which what is known is written, though a collection cannot be listed."""


class PrefixWriter:
    """Keeps the file, or the ConfigMap, true to what the cluster says."""

    def __init__(self, settings: ExcludePrefixesSettings, api: Api, *, patience: float = PATIENCE) -> None:
        self._settings = settings
        self._api = api
        self._patience = patience
        self._fixed = _fixed(settings)
        self._news = asyncio.Event()
        self._written: str | None = None
        user = _of_user(settings.config_map_key)
        name, namespace = settings.config_map_name, settings.config_map_namespace
        core = "v1"
        self._wide = [
            self._follow(collection(core, "nodes"), prefixes.of_node),
            self._follow(collection("networking.k8s.io/v1", "servicecidrs"), prefixes.of_service_cidr),
            self._follow(
                collection(core, "configmaps", "kube-system"), prefixes.of_kubeadm, "kubeadm-config"
            ),
            self._follow(collection(core, "configmaps", namespace), user, name),
        ]
        self._single = [
            self._follow(collection(core, "pods"), prefixes.of_pod),
            self._follow(collection(core, "services"), prefixes.of_service),
        ]

    def _follow(
        self, path: str, read: Callable[[Object], list[Network]], name: str = ""
    ) -> tuple[Source, Reflector]:
        source = Source(path, read, self._news.set)
        chosen = {"fieldSelector": f"metadata.name={name}"} if name else None
        return source, Reflector(self._api, path, source, chosen)

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What is excluded now."""
        wide = [item for source, _ in self._wide for item in source.networks]
        single = [item for source, _ in self._single for item in source.networks]
        return prefixes.merged([*self._fixed, *wide], single)

    @asynccontextmanager
    async def running(self, scope: Scope) -> AsyncIterator[None]:
        """Write each change while the block runs."""
        tasks = [
            scope.spawn(reflector.run(), name=f"watch {source.name}")
            for source, reflector in (*self._wide, *self._single)
        ]
        tasks.append(scope.spawn(self._write(), name="write excluded prefixes"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    async def _write(self) -> None:
        await self._listed()
        delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            self._news.clear()
            found = self.prefixes
            text = prefixes.document(found)
            try:
                if text != self._written:
                    await self._put(text)
                    log.info("excluded prefixes written", prefixes=found)
                    self._written = text
            except (MeshError, OSError) as error:
                log.warning("excluded prefixes not written yet", error=str(error))
                await asyncio.sleep(next(delays))
                continue
            delays = pauses(FIRST_PAUSE, LONGEST_PAUSE)
            await self._news.wait()
            await asyncio.sleep(SETTLE)

    async def _listed(self) -> None:
        """Wait until all is known, so that nothing is left out for a moment; not for ever."""
        followed = (*self._wide, *self._single)
        try:
            async with asyncio.timeout(self._patience):
                for _, reflector in followed:
                    await reflector.synced.wait()
        except TimeoutError:
            lacking = [source.name for source, reflector in followed if not reflector.synced.is_set()]
            log.warning("excluded prefixes may be too few: not listed yet", lacking=lacking)

    async def _put(self, text: str) -> None:
        settings = self._settings
        if settings.prefixes_output_type == FILE:
            _replace(Path(settings.output_file_path), text)
            return
        name, namespace = settings.output_config_map_name, settings.config_map_namespace
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {settings.output_config_map_key: text},
        }
        await self._api.call(
            "PATCH",
            f"{collection('v1', 'configmaps', namespace)}/{name}",
            body=body,
            params={"fieldManager": MANAGER, "force": "true"},
            content_type=APPLY,
        )


def _replace(path: Path, text: str) -> None:
    """Put a file in place as a whole: who reads it sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    fresh.replace(path)


def _fixed(settings: ExcludePrefixesSettings) -> list[Network]:
    """Return the prefixes of the settings; raises Invalid for settings that cannot be used."""
    if settings.prefixes_output_type not in {FILE, CONFIG_MAP}:
        raise Invalid(
            f"NSM_PREFIXES_OUTPUT_TYPE is {settings.prefixes_output_type}, which is no kind of output",
            remedy=f"say {FILE} or {CONFIG_MAP}",
        )
    try:
        return [prefixes.network(item) for item in settings.excluded_prefixes]
    except ValueError as error:
        raise Invalid(
            f"NSM_EXCLUDED_PREFIXES cannot be used: {error}", remedy="write CIDRs, such as 10.0.0.0/8"
        ) from error


def _of_user(key: str) -> Callable[[Object], list[Network]]:
    def read(config: Object) -> list[Network]:
        return [prefixes.network(item) for item in read_prefixes((config.get("data") or {}).get(key, ""))]

    return read


@asynccontextmanager
async def running_exclude_prefixes(settings: ExcludePrefixesSettings) -> AsyncIterator[PrefixWriter]:
    """Keep the prefixes written while the block runs."""
    _fixed(settings)  # before anybody is asked for anything
    async with connected() as api, Scope("exclude prefixes") as scope:
        writer = PrefixWriter(settings, api)
        async with writer.running(scope):
            yield writer


async def serve_exclude_prefixes(settings: ExcludePrefixesSettings, stop: asyncio.Event) -> None:
    """Keep the prefixes written until ``stop``."""
    async with running_exclude_prefixes(settings):
        log.info("excluded prefixes are looked for", output=settings.prefixes_output_type)
        await stop.wait()
