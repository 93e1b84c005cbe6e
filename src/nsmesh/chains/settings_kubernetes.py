"""Settings of what runs beside the roles of a mesh in a Kubernetes cluster: NSM's variables and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from nsmesh.chains.settings import Common


@dataclass(frozen=True, kw_only=True)
class ExcludePrefixesSettings(Common):
    """Finds out which addresses a cluster uses, for its managers."""

    excluded_prefixes: tuple[str, ...] = ()
    """Prefixes to exclude beside those that are found."""
    config_map_namespace: str = "default"
    """Namespace of both ConfigMaps."""
    config_map_name: str = "excluded-prefixes-config"
    """ConfigMap with more prefixes to exclude."""
    config_map_key: str = "excluded_prefixes_input.yaml"
    """Its key; YAML, prefixes: [CIDR, ...]."""
    output_config_map_name: str = "nsm-config"
    """ConfigMap to write, where the output is config-map."""
    output_config_map_key: str = "excluded_prefixes_output.yaml"
    """Its key."""
    output_file_path: str = "/var/lib/networkservicemesh/config/excluded_prefixes.yaml"
    """File to write, where the output is file."""
    prefixes_output_type: str = "file"
    """What to write: file or config-map."""
