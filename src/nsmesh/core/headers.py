"""Headers of an answer, for the elements that need them (the registries' ``path``)."""

from __future__ import annotations

from nsmesh.core.call import Key

ANSWERED: Key[dict[str, str]] = Key("answered")
"""In ``call.values``: where the stub of a remote peer puts the initial metadata of its answer."""
