"""What comes back from a Workload API, read; and where to find one."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from nsmesh.api import workload_pb2
from nsmesh.core.errors import Invalid
from nsmesh.security.spiffe import SpiffeId, trust_domain_of
from nsmesh.security.svid import Svid
from nsmesh.security.verify import Bundle

SOCKET_VARIABLE = "SPIFFE_ENDPOINT_SOCKET"


def workload_socket(environment: Mapping[str, str]) -> str:
    """Return the URL in SPIFFE_ENDPOINT_SOCKET: ``unix:///path`` or ``tcp://IP:port``.

    Raises Invalid saying what is wrong with it, or that it is not set.
    """
    text = environment.get(SOCKET_VARIABLE, "").strip()
    if not text:
        raise Invalid(
            f"{SOCKET_VARIABLE} is not set", remedy="set it to the Workload API, like unix:///run/agent.sock"
        )
    scheme, _, rest = text.partition("://")
    if scheme == "unix" and rest.startswith("/") and len(rest) > 1:
        return text
    host, _, port = rest.rpartition(":")
    try:
        ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        good = scheme == "tcp" and 0 < int(port) < 65536
    except ValueError:
        good = False
    if not good:
        raise Invalid(
            f"{SOCKET_VARIABLE} is {text!r}", remedy="give unix:// with an absolute path, or tcp://IP:port"
        )
    return text


def read_x509_response(message: bytes) -> tuple[Svid, list[Bundle]]:
    """Return the first SVID of an X509SVIDResponse and all bundles, its own trust domain's first.

    Raises Invalid where something cannot be used.
    """
    try:
        response = workload_pb2.X509SVIDResponse.FromString(message)
    except DecodeError as error:
        raise Invalid(
            f"the Workload API answered with something that is no X509SVIDResponse: {error}"
        ) from error
    if not response.svids:
        raise Invalid(
            "the Workload API answered without an SVID", remedy="register an entry for this process"
        )
    first = response.svids[0]
    svid = Svid.from_der(first.x509_svid, first.x509_svid_key)
    if svid.spiffe_id != first.spiffe_id:
        raise Invalid(f"the Workload API calls {first.spiffe_id!a} what is the SVID of {svid.spiffe_id}")
    domain = SpiffeId.parse(svid.spiffe_id).trust_domain
    bundles = {domain: Bundle.from_der(domain, first.bundle)}
    for name, der in response.federated_bundles.items():
        foreign = trust_domain_of(name)
        if foreign != domain:  # nobody else's word counts for our own authorities
            bundles[foreign] = Bundle.from_der(foreign, der)
    return svid, list(bundles.values())
