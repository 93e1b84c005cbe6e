"""Settings of the CA of a cluster and of its agents."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings_common import Common

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where a pod finds what it needs to speak with the API server."""


def _named(variable: str, default: str = "") -> str:
    value: str = field(default=default, metadata={"variable": variable})
    return value


@dataclass(frozen=True, kw_only=True)
class AttestationSettings(Common):
    """What the CA of a cluster and its agents read both."""

    trust_domain: str = "cluster.nsmesh"
    """Trust domain of all SPIFFE IDs of this cluster."""
    namespace: str = "nsm-system"
    """Namespace of the secret that keeps the CA, and of the config map with its certificates."""
    bundle_name: str = "nsm-ca-bundle"
    """Config map with the certificates of the CA, PEM, under the key bundle.pem."""
    audience: str = "nsm-ca"
    """Audience of the service-account tokens by which agents prove which node they are on."""
    service_account_folder: str = SERVICE_ACCOUNT
    """Folder with ca.crt and token, for calls to the API server."""


@dataclass(frozen=True, kw_only=True)
class AuthoritySettings(AttestationSettings):
    """The CA of a cluster."""

    name: str = "identity-authority"
    """Name of this process in logs."""
    listen_on: str = "tcp://:5010"
    """Where it listens for agents."""
    secret_name: str = "nsm-ca"  # noqa: S105 - the name of an object
    """Secret that keeps the keys of the CA."""
    agent_account: str = "nsm-identity-agent"
    """Service account of the agents, in the namespace above."""
    folder: str = "/tmp/ca"  # noqa: S108 - a file system in memory of this pod alone
    """Folder for the files of the CA while it runs; in memory."""


@dataclass(frozen=True, kw_only=True)
class AgentSettings(AttestationSettings):
    """The agent of a node: serves the Workload API to the pods of its node."""

    name: str = "identity-agent"
    """Name of this process in logs."""
    node_name: str = _named("NODE_NAME")
    """The node that it runs on."""
    authority_url: str = "tcp://nsm-ca:5010"
    """The CA of the cluster."""
    listen_on: str = "unix:///run/spire/sockets/agent.sock"
    """Where pods ask for their identity: the socket that NSM's manifests mount."""
    token_file: str = "/var/run/secrets/tokens/nsm-ca"  # noqa: S105 - a path
    """Projected service-account token with the audience above; read again for each call."""
    delegated_listen_on: str = ""
    """Where delegates ask for the identities of pods: unix:///SOCKET in another folder; empty: nowhere."""
    authorized_delegates: tuple[str, ...] = ()
    """SPIFFE IDs of those who may act in the name of pods of this node, such as a node agent."""
