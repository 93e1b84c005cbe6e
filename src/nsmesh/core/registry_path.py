"""The path of a registry call, for the elements of both halves."""

from __future__ import annotations

from nsmesh.core.call import Key
from nsmesh.model.registry_path import RegistryPath

REGISTRY_PATH: Key[RegistryPath] = Key("registry-path")
"""In ``call.values``: the path as it is now. The client half writes what the next hop made of it into it."""
