"""What a role needs to be safe: its identity, its tokens, and the elements that ask the policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from nsmesh.core.clock import Clock, SystemClock
from nsmesh.core.element import Element
from nsmesh.elements.authorize import Authorize, AuthorizeClient
from nsmesh.elements.registry_authorize import RegistryAuthorize, RegistryAuthorizeClient
from nsmesh.elements.registry_path import RegistryPath, RegistryPathClient
from nsmesh.security.policy import (
    OWN_NAME,
    REGISTRY_CLIENT_POLICIES,
    REGISTRY_SERVER_POLICIES,
    SERVER_POLICIES,
)
from nsmesh.security.svid import SvidSource
from nsmesh.security.token import LIFETIME, TokenMinter, TokenReader


@dataclass(frozen=True, slots=True)
class Secured:
    """The security of one process. Its elements share one reader, so each token is read once.

    ``lifetime``: seconds that tokens live, NSM_MAX_TOKEN_LIFETIME. ``identity`` goes to ``rpc``, ``tokens``
    into the chains.
    """

    identity: SvidSource
    lifetime: float = LIFETIME
    clock: Clock = field(default_factory=SystemClock)
    reader: TokenReader = field(default_factory=TokenReader)
    tokens: TokenMinter = field(init=False)

    def __post_init__(self) -> None:
        minter = TokenMinter(self.identity, lifetime=self.lifetime, clock=self.clock)
        object.__setattr__(self, "tokens", minter)

    def policies(self, masks: Sequence[str] = ()) -> tuple[Element, ...]:
        """Return what stands behind UpdateToken in every server chain.

        Beyond the policies of the field it asks that a caller's token speaks in the caller's own name, and
        what ``masks`` select.
        """
        return (Authorize((*SERVER_POLICIES, OWN_NAME, *masks), reader=self.reader),)

    def checks(self) -> tuple[Element, ...]:
        """Return what stands behind Dial in the chain of a client (managers and forwarders have none)."""
        return (AuthorizeClient(reader=self.reader),)

    def registry_front(
        self, masks: Sequence[str] = REGISTRY_SERVER_POLICIES, *, recorded: bool = False
    ) -> tuple[Element, ...]:
        """Return what stands outermost in a registry's server, and in a manager's view of one.

        Where anything is asked at all, it is also asked whether the caller's token speaks in the caller's own
        name: names would belong to nobody otherwise. ``recorded``: what is registered is shared with other
        processes, and says itself whose it is.
        """
        asked = (*masks, OWN_NAME) if masks else ()
        return (
            RegistryPath(self.tokens, reader=self.reader),
            RegistryAuthorize(asked, reader=self.reader, recorded=recorded and bool(masks)),
        )

    def registry_checks(self, masks: Sequence[str] = REGISTRY_CLIENT_POLICIES) -> tuple[Element, ...]:
        """Return what stands behind Dial in whatever registers or passes registrations on."""
        return (RegistryAuthorizeClient(masks, reader=self.reader), RegistryPathClient())
