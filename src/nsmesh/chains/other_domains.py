"""How a registry passes on what is another domain's: ``x@domain`` goes to the registry that is set for it."""

from __future__ import annotations

from nsmesh.chains.runtime import Runtime
from nsmesh.core.begin import Begin
from nsmesh.core.element import Element, chain
from nsmesh.core.peering import Dialled
from nsmesh.elements.client_token import ClientToken
from nsmesh.elements.dial import Dial
from nsmesh.elements.expire import Expire
from nsmesh.elements.other_domains import OtherDomains


def other_domains(
    url: str, runtime: Runtime, *, name: str, period: float, masks: tuple[str, ...]
) -> tuple[Element, ...]:
    """Return what stands behind the front of the registry ``name``; nothing where no ``url`` is set.

    ``period`` (seconds) is how long an endpoint stays there without being registered again by way of this
    one; ``masks`` select policies for the answers.
    """
    if not url:
        return ()
    elsewhere = chain(
        Begin(),
        Expire(period),
        Dial(runtime.peers, target=url),
        ClientToken(runtime.tokens),
        *runtime.registry_checks(masks),
        end=Dialled(),
        name=f"{name} other domains",
        clock=runtime.clock,
    )
    return (OtherDomains(elsewhere),)
