"""Which addresses a cluster uses, from what its objects say; for endpoints to keep clear of."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable

import structlog
import yaml

from nsmesh.kubernetes.client import Object

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

BLOCKS = {4: 24, 6: 64}
"""Prefix length, by version, to which the address of a pod or Service outside of all CIDRs is widened."""


def network(text: str) -> Network:
    """Read a CIDR or an address; raises ValueError."""
    return ipaddress.ip_network(text.strip(), strict=False)


def of_node(node: Object) -> list[Network]:
    """Return the pod CIDRs and the addresses of a node."""
    spec, status = node.get("spec", {}), node.get("status", {})
    cidrs = spec.get("podCIDRs") or [spec.get("podCIDR")]
    addresses = [
        item.get("address") for item in status.get("addresses") or () if str(item.get("type")).endswith("IP")
    ]
    return _read([*cidrs, *addresses])


def of_pod(pod: Object) -> list[Network]:
    """Return the addresses of a pod; none where they are its node's, or it has given them up."""
    status = pod.get("status", {})
    if pod.get("spec", {}).get("hostNetwork") or status.get("phase") in {"Succeeded", "Failed"}:
        return []
    return _read([status.get("podIP"), *(item.get("ip") for item in status.get("podIPs") or ())])


def of_service(service: Object) -> list[Network]:
    """Return the addresses of a Service in the cluster."""
    spec = service.get("spec", {})
    return _read(address for address in spec.get("clusterIPs") or () if address != "None")


def of_service_cidr(cidr: Object) -> list[Network]:
    """Return what a ServiceCIDR holds."""
    return _read(cidr.get("spec", {}).get("cidrs") or ())


def of_kubeadm(config: Object) -> list[Network]:
    """Return the pod and Service subnets of the ConfigMap ``kubeadm-config``; raises ValueError."""
    text = (config.get("data") or {}).get("ClusterConfiguration", "")
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"ClusterConfiguration is no YAML: {error}") from error
    networking = found.get("networking") if isinstance(found, dict) else None
    if not isinstance(networking, dict):
        return []
    subnets = (networking.get("podSubnet"), networking.get("serviceSubnet"))
    return [network(item) for text in subnets if text for item in str(text).split(",")]


def merged(wide: Iterable[Network], single: Iterable[Network]) -> tuple[str, ...]:
    """Return all as the fewest CIDRs, in order; ``single`` ones outside of ``wide`` are widened to blocks.

    So the list stays short where nothing says which addresses pods get, and a pod that comes or goes seldom
    changes it.
    """
    found = set(_collapsed(wide))
    strays = (item for item in set(single) if not _inside(item, found))
    blocks = {item.supernet(new_prefix=min(BLOCKS[item.version], item.prefixlen)) for item in strays}
    return tuple(str(item) for item in _collapsed([*found, *blocks]))


def document(prefixes: Iterable[str]) -> str:
    """Return the file that managers read, spelt as NSM's writer does."""
    return str(yaml.safe_dump({"Prefixes": list(prefixes)}, sort_keys=False))


def _inside(item: Network, found: set[Network]) -> bool:
    return any(item.supernet(new_prefix=length) in found for length in range(item.prefixlen + 1))


def _collapsed(networks: Iterable[Network]) -> list[Network]:
    every = list(networks)
    four = [item for item in every if isinstance(item, ipaddress.IPv4Network)]
    six = [item for item in every if isinstance(item, ipaddress.IPv6Network)]
    return [*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)]


def _read(texts: Iterable[str | None]) -> list[Network]:
    return [network(text) for text in texts if text]


class Source:
    """What one collection says; fed by a reflector. ``changed`` is called when that is news."""

    def __init__(self, name: str, read: Callable[[Object], list[Network]], news: Callable[[], None]) -> None:
        self.name = name
        self._read = read
        self._news = news
        self._found: dict[str, list[Network]] = {}

    @property
    def networks(self) -> list[Network]:
        """All that is said now."""
        return [item for found in self._found.values() for item in found]

    def changed(self, item: Object) -> None:
        """Take an object; one that cannot be read leaves what it said before."""
        if self._take(item):
            self._news()

    def deleted(self, item: Object) -> None:
        """Take an object's last form; it is gone."""
        if self._found.pop(_key(item), None):
            self._news()

    def replace(self, items: list[Object], version: str) -> None:  # noqa: ARG002 - a Sink's face
        """Take all objects."""
        there = {_key(item) for item in items}
        self._found = {key: found for key, found in self._found.items() if key in there}
        for item in items:
            self._take(item)
        self._news()

    def _take(self, item: Object) -> bool:
        key = _key(item)
        try:
            found = self._read(item)
        except (ValueError, TypeError, AttributeError) as error:
            log.warning(
                "prefixes not understood: what was read before stays",
                source=self.name,
                object=key,
                error=str(error),
            )
            return False
        if self._found.get(key, []) == found:
            return False
        if found:
            self._found[key] = found
        else:
            self._found.pop(key, None)
        return True


def _key(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
