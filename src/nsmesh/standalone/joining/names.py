"""SPIFFE IDs of a mesh on several hosts: the first host, nodes that joined, and what lives on them."""

from __future__ import annotations

from nsmesh.security.spiffe import SpiffeId

_NODE = "/node/"


def first_id(trust_domain: str) -> str:
    """Return the ID of the first host's daemon."""
    return f"spiffe://{trust_domain}/nsm/mesh"


def node_id(trust_domain: str, name: str) -> str:
    """Return the ID of a node that joined; whatever lives there has an ID below it."""
    return f"spiffe://{trust_domain}{_NODE}{name}"


def node_of(identity: SpiffeId) -> tuple[str, str]:
    """Return the node that an ID belongs to, and what is below it; empty for the first host's IDs."""
    if not identity.path.startswith(_NODE):
        return "", ""
    name, _, rest = identity.path.removeprefix(_NODE).partition("/")
    return name, rest
