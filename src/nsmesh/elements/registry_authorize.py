"""RegistryAuthorize: a name belongs to who registered it first, until it is unregistered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Element, Handler
from nsmesh.core.errors import MeshError
from nsmesh.core.life import OWN
from nsmesh.core.lookup import find_endpoints, find_services
from nsmesh.core.peering import DIALLED, peer_of
from nsmesh.core.registry_path import REGISTRY_PATH
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import Entry, NetworkService, NetworkServiceEndpoint
from nsmesh.model.registry_path import RegistryPath
from nsmesh.security.policy import (
    REGISTRY_CLIENT_POLICIES,
    REGISTRY_SERVER_POLICIES,
    authorize,
    select,
)
from nsmesh.security.rules import Question
from nsmesh.security.token import TokenReader


class _Owners(Element):
    """The map of names to the path ids of their registration, and the policies that read it."""

    def __init__(self, masks: Sequence[str], reader: TokenReader | None) -> None:
        self._policies = select(masks)
        self._reader = reader or TokenReader()
        # services and endpoints of one name are different things
        self._owners: dict[type[Entry], dict[str, list[str]]] = {}

    def owners(self, entry: Entry) -> Mapping[str, Sequence[str]]:
        """Return the recorded path ids by name, of entries of this kind."""
        return self._of(entry)

    def _of(self, entry: Entry) -> dict[str, list[str]]:
        return self._owners.setdefault(type(entry), {})

    def _authorize(
        self, call: Call, entry: Entry, *, whole: bool, peer: Peer, owner: Sequence[str] | None = None
    ) -> None:
        path = call.get(REGISTRY_PATH)
        tokens = None if path is None else path.tokens if whole else path.tokens[: path.index + 1]
        question = Question(
            tokens=tokens,
            index=0 if path is None else path.index,
            certificate=peer.certificate,
            peer=peer.spiffe_id,
            now=self.scope.clock.now(),
            reader=self._reader,
            resource=entry.name,
            owners=self._of(entry) if owner is None else {entry.name: owner},
        )
        authorize(self._policies, question)


class RegistryAuthorize(_Owners):
    """Asks the policies of a registry's server, which know to whom each name belongs.

    ``masks``: NSM_REGISTRY_SERVER_POLICIES; none of them asks nothing. Roles of this process prove nothing,
    but own what they register. A name stays owned when its entry expires: only an Unregister frees it.

    ``recorded``: other processes share what is registered, so nothing is remembered here: a name belongs to
    who its stored entry says, as long as there is one, whichever process took it.

    After:  RegistryPath
    Reads:  REGISTRY_PATH; who calls; where ``recorded``, the stored entries of a name
    Leaves: the owner of each name, until Unregister; where ``recorded``, nothing
    """

    after = ("RegistryPath",)

    def __init__(
        self,
        masks: Sequence[str] = REGISTRY_SERVER_POLICIES,
        *,
        reader: TokenReader | None = None,
        recorded: bool = False,
    ) -> None:
        super().__init__(masks, reader)
        self._recorded = recorded

    def _check(self, call: Call, entry: Entry, owner: Sequence[str] | None) -> None:
        if not (call.peer.in_process or call.get(OWN)):
            self._authorize(call, entry, whole=False, peer=call.peer, owner=owner)

    async def _stored_owner(self, call: Call, entry: Entry, next: Handler) -> Sequence[str] | None:
        """Return the path ids of the entry that has the name, None where it belongs to nobody.

        Of several of one name, as in two namespaces of a cluster, the caller's own counts.
        """
        if not self._recorded or not entry.name:
            return None
        found: Sequence[Entry] = (
            await find_endpoints(next, call, NetworkServiceEndpoint(name=entry.name))
            if isinstance(entry, NetworkServiceEndpoint)
            else await find_services(next, call, NetworkService(name=entry.name))
        )
        owners = [list(one.path_ids) for one in found if one.name == entry.name and any(one.path_ids[:1])]
        own = [one for one in owners if one[:1] == list(entry.path_ids[:1])]
        return (own or owners)[0] if owners else None

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Ask, hold the name while the rest of the chain decides, keep or free it."""
        owner = await self._stored_owner(call, entry, next)
        owners, name = self._of(entry), entry.name
        self._check(call, entry, None if name in owners else owner)
        held: list[str] | None = None
        if name and name not in owners:  # held at once: of two that come together one is second
            held = owners[name] = list(entry.path_ids)
        try:
            stored = await next.register(call, entry)
        except BaseException:
            if held is not None and owners.get(name) is held:
                del owners[name]
            raise
        if not self._recorded:
            owners[stored.name] = list(stored.path_ids)
        elif held is not None and owners.get(name) is held:
            del owners[name]
        return stored

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Ask, pass on, free the name."""
        self._check(call, entry, await self._stored_owner(call, entry, next))
        await next.unregister(call, entry)
        self._of(entry).pop(entry.name, None)


class RegistryAuthorizeClient(_Owners):
    """Asks the policies of a registry's client about who answered, and what came back.

    A refused first registration is taken back. ``masks``: NSM_REGISTRY_CLIENT_POLICIES.

    After:  Dial
    Before: RegistryPathClient
    Reads:  REGISTRY_PATH; DIALLED
    Leaves: the owner of each name that we registered, until Unregister
    """

    after = ("Dial",)

    def __init__(
        self, masks: Sequence[str] = REGISTRY_CLIENT_POLICIES, *, reader: TokenReader | None = None
    ) -> None:
        super().__init__(masks, reader)

    def _check(self, call: Call, entry: Entry) -> None:
        handler = call.get(DIALLED)
        peer = peer_of(handler) if handler is not None else Peer()
        if not peer.in_process:
            self._authorize(call, entry, whole=True, peer=peer)

    @staticmethod
    def _with_path(call: Call) -> Call:
        """Return the call with a place into which the path of the answer comes."""
        return call if call.get(REGISTRY_PATH) is not None else call.put(REGISTRY_PATH, RegistryPath())

    async def register(self, call: Call, entry: Entry, next: Handler) -> Entry:
        """Pass on, ask, take back what was refused."""
        call = self._with_path(call)
        stored = await next.register(call, entry)
        try:
            self._check(call, stored)
        except MeshError as refusal:
            if stored.name not in self._of(stored):
                try:
                    await next.unregister(call, copy_of(stored))
                except MeshError as error:
                    refusal.add_note(f"and it could not be unregistered again: {error}")
            raise
        self._of(stored)[stored.name] = list(stored.path_ids)
        return stored

    async def unregister(self, call: Call, entry: Entry, next: Handler) -> None:
        """Pass on, ask, forget."""
        call = self._with_path(call)
        asked = copy_of(entry)
        await next.unregister(call, entry)
        self._check(call, asked)
        self._of(asked).pop(asked.name, None)
