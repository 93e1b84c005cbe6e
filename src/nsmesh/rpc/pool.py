"""Connections that stay: one per neighbour, dialled once however many ask at a time."""

from __future__ import annotations

import asyncio
import math
import time

from nsmesh.core.errors import MeshError, Unavailable
from nsmesh.core.identity import Identity
from nsmesh.core.metrics import Counter
from nsmesh.rpc import address, dialing
from nsmesh.rpc.client import Client, connect
from nsmesh.rpc.descriptors import SHARED, Descriptors
from nsmesh.rpc.limits import DEFAULT, Limits
from nsmesh.rpc.place import Place, place_of

DIALS = Counter("nsm_rpc_dials", "Connections that were dialled, by gRPC status.", ("status",))

GIVEN_UP = 10.0
"""Seconds for which nobody is waited for at a URL that was cut."""


class Pool:
    """One connection per URL. A lost one is dialled anew at its next use.

    Tokens are signed with the keys of today and checked against the leaf of the handshake. So a connection
    takes no new calls after our identity has rotated, or when half of the life of its peer's leaf is over,
    which is when peers rotate; of one that is older, half of what was left. Calls that run on it go on, and
    it ends with the last of them. The same holds when the URL, that of a received descriptor, leads to
    another socket by now.
    """

    def __init__(
        self,
        *,
        identity: Identity | None = None,
        timeout: float = 0.75,
        engine: str | None = None,
        limits: Limits = DEFAULT,
        descriptors: Descriptors = SHARED,
    ) -> None:
        self._identity = identity
        self._timeout = timeout
        self._engine = engine
        self._limits = limits
        self._descriptors = descriptors
        self._clients: dict[str, Client] = {}
        self._dials: dict[str, asyncio.Future[Client]] = {}
        self._dialling: dict[str, asyncio.Timeout] = {}
        self._given_up: dict[str, float] = {}
        self._closed = False
        self._renew_at: dict[Client, float] = {}
        self._places: dict[Client, Place] = {}
        self._forget_listener = identity.on_rotation(self.renew) if identity else None

    def renew(self) -> None:
        """Dial anew for all calls that begin from now on."""
        for url in list(self._clients):
            self.retire(url)

    def retire(self, url: str) -> None:
        """Dial ``url`` anew for all calls that begin from now on."""
        client = self._clients.pop(url, None)
        if client is None:
            return
        self._forget(client)
        client.scope.spawn(_end_when_idle(client), name="retired connection")

    async def get(self, url: str) -> Client:
        """Return the connection to ``url``; raises as :func:`nsmesh.rpc.connect`, at once where refused."""
        while True:
            if self._closed:
                raise Unavailable(f"no connection to {url}: this pool is closed")
            client = self.at_hand(url)
            if client is not None:
                return client
            dial = self._dials.get(url)
            if dial is None:
                return await self._dial(url)
            try:
                return await asyncio.shield(dial)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if not dial.cancelled() or (task is not None and task.cancelling()):
                    raise
                # whoever dialled was cancelled, and we were not: dial ourselves

    def at_hand(self, url: str) -> Client | None:
        """Return the connection to ``url`` where there is one that takes new calls, else None."""
        client = self._clients.get(url)
        if client is None or client.closed:
            return None
        if time.time() < self._renew_at.get(client, math.inf) and self._still_there(url, client):
            return client
        self.retire(url)
        return None

    def _still_there(self, url: str, client: Client) -> bool:
        place = self._places.get(client)
        return place is None or place_of(url) == place

    def is_awaited(self, url: str) -> bool:
        """Say whether a server is to come at ``url``, whose socket is held for it meanwhile.

        Not where :meth:`cut` was called just now: nobody waits for one that is known to be dead.
        """
        if time.monotonic() < self._given_up.get(url, 0.0):
            return False
        return dialing.is_awaited(address.parse(url))

    def _forget(self, client: Client) -> None:
        self._renew_at.pop(client, None)
        self._places.pop(client, None)

    async def _dial(self, url: str) -> Client:
        place = place_of(url)
        future = self._dials[url] = asyncio.get_running_loop().create_future()
        try:
            client = await self._connected(url)
        except MeshError as error:
            DIALS.add(error.status.name)
            future.set_exception(error)
            future.exception()  # seen, also where nobody shares it
            raise
        except BaseException:
            future.cancel()
            raise
        finally:
            self._dials.pop(url, None)
            self._dialling.pop(url, None)
        if self._closed:
            await client.aclose(0)
            future.cancel()
            raise Unavailable(f"no connection to {url}: this pool is closed")
        DIALS.add("OK")
        self._given_up.pop(url, None)
        self._clients[url] = client
        if client.peer.certificate:
            self._renew_at[client] = _half_life(client.peer.certificate)
        if place is not None:
            self._places[client] = place
        client.on_lost = lambda: self._lost(url, client)
        future.set_result(client)
        return client

    async def _connected(self, url: str) -> Client:
        try:
            async with asyncio.timeout(None) as limit:
                self._dialling[url] = limit
                return await connect(
                    url,
                    identity=self._identity,
                    timeout=self._timeout,
                    engine=self._engine,
                    limits=self._limits,
                    descriptors=self._descriptors,
                )
        except TimeoutError:
            raise Unavailable(
                f"the dial of {url} was given up: whoever was there is known to be dead", remedy="try again"
            ) from None

    def _lost(self, url: str, client: Client) -> None:
        """Drop a connection that has ended: addresses of endpoints come and go."""
        if self._clients.get(url) is client:
            del self._clients[url]
        self._forget(client)

    async def forget(self, url: str) -> None:
        """Close the connection to ``url``, where there is one."""
        client = self._clients.pop(url, None)
        if client is not None:
            self._forget(client)
            await client.aclose()

    def cut(self, url: str) -> None:
        """End the connection to ``url`` now, or the dial; whoever waits for an answer gets Unavailable."""
        now = time.monotonic()
        self._given_up = {known: until for known, until in self._given_up.items() if until > now}
        self._given_up[url] = now + GIVEN_UP
        limit = self._dialling.get(url)
        if limit is not None and not limit.expired():
            limit.reschedule(asyncio.get_running_loop().time())
        client = self._clients.pop(url, None)
        if client is not None:
            self._forget(client)
            client.scope.spawn(client.aclose(0), name="cut connection")

    async def aclose(self, grace: float = 1.0) -> None:
        """Close all connections, calls that run get ``grace`` seconds; nothing is dialled any more."""
        self._closed = True
        if self._forget_listener is not None:
            self._forget_listener()
            self._forget_listener = None
        self._renew_at.clear()
        self._places.clear()
        clients = list(self._clients.values())
        self._clients.clear()
        await asyncio.gather(*(client.aclose(grace) for client in clients))


async def _end_when_idle(client: Client) -> None:
    await client.idle.wait()
    await client.aclose()


def _half_life(leaf: bytes) -> float:
    """Return when a certificate (DER) is to be looked at anew, wall time in seconds: see :class:`Pool`."""
    from cryptography import x509  # noqa: PLC0415 - a fifth of the start of a command, which has no identity

    now, certificate = time.time(), x509.load_der_x509_certificate(leaf)
    ends = certificate.not_valid_after_utc.timestamp()
    half = (certificate.not_valid_before_utc.timestamp() + ends) / 2
    return half if half > now else now + (ends - now) / 2
