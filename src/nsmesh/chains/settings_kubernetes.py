"""Settings of what runs beside the roles of a mesh in a Kubernetes cluster: NSM's variables and defaults."""

from __future__ import annotations

from dataclasses import dataclass, field

from nsmesh.chains.settings_common import Common
from nsmesh.model.settings import Seconds

EXEMPT = ("kube-system", "kube-public", "kube-node-lease", "spire", "nsm-system")
"""Namespaces whose pods a node needs before it has a mesh, or that are the mesh."""


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


@dataclass(frozen=True, kw_only=True)
class AdmissionWebhookSettings(Common):
    """Gives wires to annotated pods of a cluster."""

    name: str = "admission-webhook-k8s"
    """Name of its MutatingWebhookConfiguration, with selfregister."""
    service_name: str = "default"
    """Name of the Service by which API servers reach it."""
    namespace: str = "default"
    """Namespace of that Service; nothing in it is patched."""
    annotation: str = "networkservicemesh.io"
    """Annotation with the network services of a pod."""
    labels: dict[str, str] = field(default_factory=dict)
    """Labels that a patched pod gets."""
    nsurl_env_name: str = "NSM_NETWORK_SERVICES"
    """Variable by which the containers that are added learn the annotation."""
    init_container_images: tuple[str, ...] = ()
    """Images that run to their end before the pod's own containers."""
    container_images: tuple[str, ...] = ()
    """Images that run beside the pod's own containers."""
    init_container_args: tuple[str, ...] = ()
    """What the former are started with, for an image of several roles: run,nsc-init."""
    container_args: tuple[str, ...] = ()
    """What the latter are started with: run,nsc."""
    native_sidecars: bool = False
    """Whether the latter are init containers that stay: they start first, end last, let a Job complete."""
    sidecar_started: tuple[str, ...] = ()
    """Command in them that succeeds when the pod's own containers may start: /usr/bin/nsm-up,@NAME,25."""
    sidecar_at_start: tuple[str, ...] = ()
    """The same as a hook of their start, which is sooner: /usr/bin/nsm-up,@NAME,30."""
    envs: tuple[str, ...] = ()
    """More variables for the containers that are added, as NAME=value."""
    webhook_mode: str = "spire"
    """Who registers it and signs its certificate: selfregister (itself), spire (others, Workload API)."""
    cert_file_path: str = ""
    """File with a certificate to use instead, PEM; read again when it changes."""
    key_file_path: str = ""
    """File with its key."""
    ca_bundle_file_path: str = ""
    """File with who signed it, for selfregister."""
    sidecar_limits_memory: str = "80Mi"
    """Memory that each container that is added may take; empty: as much as it wants."""
    sidecar_limits_cpu: str = "200m"
    """Processor time that it may take; empty: as much as is free, and it starts several times faster."""
    sidecar_requests_memory: str = "40Mi"
    """Memory that it is sure to get."""
    sidecar_requests_cpu: str = "100m"
    """Processor time that it is sure to get."""
    sidecar_user: int = 65532
    """Number of its user where Pod Security bars root and the pod names no user; 0: that of its image."""
    kubelet_qps: int = 50
    """The most calls per second to the API server; then what it told last has to do."""
    listen_on: str = "tcp://:443"
    """Where it listens."""
    service_port: int = 443
    """Port of the Service."""
    silent: bool = False
    """Whether an annotation that names no network service is put into the pod as it is, as NSM does."""
    spire_socket_folder: str = "/run/spire/sockets"
    """Folder of a node with agent.sock, the Workload API."""
    socket_folder: str = "/var/lib/networkservicemesh"
    """Folder of a node with its manager's nsm.io.sock."""
    exempt_namespaces: tuple[str, ...] = EXEMPT
    """Namespaces in which nothing is patched, besides its own."""
    failure_policy: str = "Fail"
    """What becomes of annotated objects while it is away: Fail (refused) or Ignore (made without wires)."""
    webhook_timeout: int = 10
    """Seconds that they wait for it."""
    secret_name: str = "admission-webhook-k8s"  # noqa: S105 - the name of it
    """Secret with the authorities that sign its certificates, shared by all replicas."""
    authority_lifetime: Seconds = Seconds(365 * 86400)
    """How long such an authority lives; its successor takes over at three quarters."""
    certificate_lifetime: Seconds = Seconds(86400)
    """How long a certificate lives; it is replaced at its half."""
    unregister_itself: bool = False
    """Whether its configuration is removed when it ends, as NSM does; for one replica."""


@dataclass(frozen=True, kw_only=True)
class NodeCleanupSettings(Common):
    """Takes away what an uninstalled mesh has left on the nodes of a cluster."""

    name: str = "node-cleanup"
    """Name of this process in logs."""
    host: str = "/host"
    """Where the root of the node is mounted."""
    socket_folders: tuple[str, ...] = ()
    """Folders of the node of which sockets that nobody serves are removed, and they themselves once empty."""
    state_folders: tuple[str, ...] = ()
    """Folders of the node that are removed with all that is in them."""
    patience: Seconds = Seconds(40.0)
    """How long roles that still end are waited for, or nodes that are not clean yet."""
    stay: bool = False
    """Whether it stays afterwards, as the pod of a DaemonSet must."""
    wait_for: str = ""
    """DaemonSet whose pods clean the nodes: wait for it, and clean nothing here."""
    namespace: str = "nsm-system"
    """Namespace of that DaemonSet."""
