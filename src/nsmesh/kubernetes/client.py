"""Calls to a Kubernetes API server: plain JSON in and out, and errors that say what to do.

Kubeconfigs, service accounts, log-in and transport are lightkube's.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nsmesh.core.errors import (
    Invalid,
    MeshError,
    NotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unimplemented,
)

try:
    import httpx2 as httpx
    from lightkube.config.client_adapter import AsyncClient, ConnectionParams
    from lightkube.config.kubeconfig import KubeConfig, SingleConfig
    from lightkube.core.exceptions import ConfigError
except ImportError as error:  # pragma: no cover - what a base installation meets
    raise Unimplemented(
        f"this needs the client of the Kubernetes API, and {error.name} is not installed",
        remedy="install nsmesh[kubernetes]",
    ) from error

Object = dict[str, Any]
"""An object of the API as its JSON says it."""

CALL = 15.0
"""Seconds that one call may take."""
BURST = 20
"""Calls that may be made at once after a rest, where there is a limit to their rate."""
SETTLING = 15.0
"""Seconds after an outage within which a server may refuse what it allows a moment later."""
SILENCE = 150.0
"""Seconds without a line after which a watch counts as dead; a living server sends a bookmark each minute."""

_CODE_CONFLICT, _CODE_GONE = 409, 410
_OURS = "/networkservicemesh.io/"
"""In the path of whatever the mesh defines itself."""
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class Changed(MeshError):
    """The object is not as the caller knew it: it exists already, or somebody changed it."""


class Gone(MeshError):
    """The server no longer has the history that was asked for: list again."""


class Api:
    """One API server, by one HTTP connection pool. Make it with :func:`connected`."""

    def __init__(self, http: httpx.AsyncClient, namespace: str, rate: float = 0.0) -> None:
        self._http = http
        self._interval = 1.0 / rate if rate else 0.0
        self._next = 0.0
        self._settled = float("-inf")
        self.namespace = namespace
        """The namespace of the kubeconfig or of our own pod."""

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Object | list[Object] | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Make one call and return its JSON; raises the error that the answer stands for.

        NotFound, :class:`Changed` (409), :class:`Gone` (410), Invalid, Unauthorized, Unavailable, TimedOut.
        """
        await self._turn()
        content = None if body is None else json.dumps(body, separators=(",", ":"))
        headers = {"content-type": content_type} if body is not None else {}
        try:
            answer = await self._http.request(
                method, path, content=content, params=params, headers=headers, timeout=CALL
            )
        except httpx.HTTPError as error:
            raise self._unreached(error) from error
        except ConfigError as error:
            raise _no_credentials(error) from error
        if answer.is_success:
            return _read(answer.content, f"{method} {path}")
        raise self._refusal(answer.status_code, answer.content, f"{method} {path}")

    def free(self) -> bool:
        """Say whether the rate of calls allows one now, without waiting."""
        return self._next + self._interval <= asyncio.get_running_loop().time()

    async def _turn(self) -> None:
        """Wait until the rate of calls allows one more."""
        if not self._interval:
            return
        now = asyncio.get_running_loop().time()
        self._next = max(self._next + self._interval, now - BURST * self._interval)
        if self._next > now:
            await asyncio.sleep(self._next - now)

    async def watch(
        self, path: str, params: Mapping[str, str], opened: Callable[[], None]
    ) -> AsyncIterator[tuple[str, Object]]:
        """Yield (type, object) of each event of one watch, until the server ends it.

        Types are ADDED, MODIFIED, DELETED, BOOKMARK; an ERROR is raised. ``opened`` is called when the server
        has taken the watch: nothing may happen for a minute then.
        """
        asked = {**params, "watch": "true", "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(CALL, read=SILENCE)
        try:
            async with self._http.stream("GET", path, params=asked, timeout=timeout) as answer:
                if not answer.is_success:
                    raise self._refusal(answer.status_code, await answer.aread(), f"watch {path}")
                opened()
                async for line in answer.aiter_lines():
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        status = event["object"]
                        raise _error(status.get("code", 500), status, f"watch {path}")
                    yield event["type"], event["object"]
        except httpx.HTTPError as error:
            raise self._unreached(error) from error
        except ConfigError as error:
            raise _no_credentials(error) from error
        except json.JSONDecodeError as error:
            raise Unavailable(f"the API server's watch of {path} was cut in the middle of a line") from error

    def _refusal(self, code: int, content: bytes, what: str) -> MeshError:
        """Return the error of an answer; a server that has just started does not know yet who may do what."""
        error = _refused(code, content, what)
        if isinstance(error, Unauthorized) and asyncio.get_running_loop().time() < self._settled:
            return Unavailable(f"the API server has just been away, and refuses {what}: {error.what}")
        return error

    def _unreached(self, error: httpx.HTTPError) -> MeshError:
        self._settled = asyncio.get_running_loop().time() + SETTLING
        where = self._http.base_url
        said = f": {error}" if str(error) else f": {type(error).__name__}"
        if isinstance(error, httpx.TimeoutException):
            return TimedOut(f"the API server at {where} did not answer in time{said}")
        return Unavailable(
            f"the API server at {where} cannot be reached{said}",
            remedy="it is tried again; look whether the server runs and this pod's network reaches it",
        )


def _read(content: bytes, what: str) -> Object:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise Unavailable(f"what answered {what} is no API server: it sent no JSON") from error
    if not isinstance(found, dict):
        raise Unavailable(f"what answered {what} is no API server: it sent no object")
    return found


def _no_credentials(error: ConfigError) -> MeshError:
    return Unauthorized(
        f"nothing to show to the API server: {error}",
        remedy="look at the service account's token, or at what the kubeconfig runs to log in",
    )


def _refused(code: int, content: bytes, what: str) -> MeshError:
    try:
        status = json.loads(content)
    except ValueError:
        status = {"message": content[:200].decode(errors="replace").strip()}
    return _error(code, status if isinstance(status, dict) else {}, what)


def _error(code: int, status: Object, what: str) -> MeshError:  # noqa: PLR0911 - a table
    message = status.get("message") or f"HTTP status {code}"
    if code == 403:
        return Unauthorized(
            f"the API server does not allow it: {message}",
            remedy="give this service account the role of deploy/manifests, or a role with that verb",
        )
    if code == 401:
        return Unauthorized(
            f"the API server does not know us ({what})", remedy="look at the service account's token"
        )
    if code == 404:
        remedy = "are the CRDs of deploy/crds applied?" if _OURS in what else ""
        return NotFound(f"the API server has it not: {message}", remedy=remedy)
    if code == _CODE_CONFLICT:
        return Changed(message)
    if code == _CODE_GONE or status.get("reason") == "Expired":
        return Gone(message)
    if code in {400, 422}:
        return Invalid(f"the API server refuses {what}: {message}")
    return Unavailable(f"the API server failed at {what}: {message}", remedy="it is tried again")


def configuration(context: str = "") -> SingleConfig:
    """Return that of this pod, or of ``KUBECONFIG``; raises Invalid where neither, or no ``context``, is."""
    try:
        found = KubeConfig.from_env().get(context or None)
    except (ConfigError, OSError, KeyError) as error:
        if context and "not found" in str(error):
            raise Invalid(
                f"the kubeconfig has no context {context}", remedy="kubectl config get-contexts shows them"
            ) from error
        where = os.environ.get("KUBECONFIG") or "~/.kube/config"
        raise Invalid(
            f"no Kubernetes here: this pod has no service account, and {where} cannot be read ({error})",
            remedy="run it in a pod, or set KUBECONFIG",
        ) from error
    if found is None:
        raise Invalid("the kubeconfig has no current context", remedy="kubectl config use-context NAME")
    return found


def in_pod(folder: Path) -> SingleConfig:
    """Return that of a pod whose service account is in ``folder``; raises Invalid where it is none.

    The token is read again when an API server no longer takes it.
    """
    try:
        found = KubeConfig.from_service_account(folder).get()
    except (ConfigError, OSError, KeyError) as error:
        raise Invalid(
            f"this is no pod of a cluster, or one without a service account in {folder}: {error} is missing",
            remedy="run it in a cluster, with automountServiceAccountToken: true",
        ) from error
    assert found is not None  # it has one context, which is the current one
    return found


@asynccontextmanager
async def connected(chosen: SingleConfig | None = None, *, rate: float = 0.0) -> AsyncIterator[Api]:
    """Give the API server of this pod, or of ``KUBECONFIG``; raises Invalid where there is neither.

    ``rate`` is the most calls per second that it is asked for; 0: no limit.
    """
    held = chosen or configuration()
    try:
        client = AsyncClient(held, ConnectionParams(trust_env=False))
    except (OSError, ConfigError) as error:  # OSError: also what OpenSSL says of a file
        raise Invalid(
            f"the credentials for {held.cluster.server} cannot be used: {error}",
            remedy="look at the files that the kubeconfig or the service account names",
        ) from error
    async with client as http:
        yield Api(http, held.namespace, rate)


def collection(group: str, plural: str, namespace: str = "") -> str:
    """Return the path of a collection; without a namespace that of all namespaces."""
    base = f"/apis/{group}" if "/" in group else f"/api/{group}"
    return f"{base}/namespaces/{quote(namespace)}/{plural}" if namespace else f"{base}/{plural}"
