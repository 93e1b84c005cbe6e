"""Variables that a role is given and does not serve: told in one clear line each, never silently ignored.

NSM's own variables that have no effect here are known by name, with the value by which they ask for nothing.
Any other variable that begins with ``NSM_`` is most likely a mistake in writing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nsmesh.chains.settings_common import Common
from nsmesh.core.errors import Invalid
from nsmesh.model.names import nearest
from nsmesh.model.settings import PREFIX, variables

_OWN = frozenset(
    {"NSM_MESH", "NSM_RUN_DIR", "NSM_STATE_DIR", "NSM_ENDPOINT_OPTIONS", "NSM_CA_PASSPHRASE_FILE"}
)
"""Variables of the command line and of the standalone mode."""
_OF_FORWARDERS = frozenset(
    {
        "NSM_BRIDGE_NAME",
        "NSM_DATAPATH_TYPE",
        "NSM_DEVICE_SELECTOR_FILE",
        "NSM_L2_RESOURCE_SELECTOR_FILE",
        "NSM_MECHANISMS",
        "NSM_MECHANISM_PRIORITY",
        "NSM_SWITCH_DATABASE",
        "NSM_TUNNELS_APART",
        "NSM_VXLAN_GRO",
        "NSM_VXLAN_PORT",
    }
)
"""Variables by which a mesh tells its forwarders; its other roles find them in their environment too."""
_OF_CLIENTS = frozenset({"NSM_RESOLVER_FILE", "NSM_LOCAL_DNS_SERVER_ENABLED", "NSM_LOCAL_DNS_SERVER_ADDRESS"})
"""Variables of nsc that other roles find in their environment: of the image, or of a pod's first client."""
_OF_KUBERNETES = re.compile(r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?)")
"""What a pod finds in its environment for each Service whose name begins with ``nsm-``."""


@dataclass(frozen=True, slots=True)
class Unserved:
    """A feature of NSM that is not served here, and the variables that ask for it.

    ``variables``: name, and the values by which nothing is asked for. A name that ends in ``*`` stands for
    all that begin so. ``refused``: without the feature something else than what was asked for would happen.
    """

    feature: str
    variables: Mapping[str, tuple[str, ...]]
    refused: bool = False

    def asked_by(self, environment: Mapping[str, str]) -> list[str]:
        """Return the variables that are set and ask for the feature."""
        return [
            name
            for name, value in environment.items()
            if (off := self._off(name)) is not None and value.strip().lower() not in off
        ]

    def knows(self, name: str) -> bool:
        """Whether a variable belongs to the feature."""
        return self._off(name) is not None

    def _off(self, name: str) -> tuple[str, ...] | None:
        for known, off in self.variables.items():
            if name == known or (known.endswith("*") and name.startswith(known[:-1])):
                return off
        return None


def _of(feature: str, *names: str, off: tuple[str, ...] = ("",), refused: bool = False) -> Unserved:
    return Unserved(feature, dict.fromkeys(names, off), refused)


_FALSE = ("", "0", "f", "false")
EVERYWHERE = (
    _of("metrics by OpenTelemetry: Prometheus reads them, see PROMETHEUS", "NSM_METRICS_EXPORT_INTERVAL"),
    Unserved("pprof profiles", {"NSM_PPROF_ENABLED": _FALSE, "NSM_PPROF_LISTEN_ON": ("",)}),
    _of("another prefix for metrics: theirs is nsm_", "PROMETHEUS_METRICS_PREFIX"),
    _of("a debugger's port", "DLV_LISTEN_*"),
)
"""What no role serves."""
_NO_EFFECT = "no effect in NSM either"
_SRIOV = _of(
    "SR-IOV: only virtual interfaces are made",
    "NSM_SRIOV_CONFIG_FILE",
    "NSM_RESOURCE_POLL_TIMEOUT",
    "NSM_DEVICE_PLUGIN_PATH",
    "NSM_POD_RESOURCES_PATH",
    "NSM_PCI_DEVICES_PATH",
    "NSM_PCI_DRIVERS_PATH",
    "NSM_CGROUP_PATH",
    "NSM_VFIO_PATH",
)
_FORWARDER = (
    _SRIOV,
    _of("Open vSwitch: nsm run forwarder-ovs has it", "NSM_BRIDGE_NAME"),
    _of("VPP: wires are veth pairs", "NSM_VPP_*"),
    _of(
        "TLS for metrics: let a proxy or a network policy guard them",
        "NSM_PROMETHEUS_CA_FILE",
        "NSM_PROMETHEUS_KEY_FILE",
        "NSM_PROMETHEUS_CERT_FILE",
        "NSM_PROMETHEUS_MONITOR_CERTIFICATE",
        "NSM_PROMETHEUS_SERVER_HEADER_TIMEOUT",
        "NSM_PROMETHEUS_MAX_BIND_THRESHOLD",
    ),
)
_NSC = (
    _of("groups of services whose addresses may overlap", "NSM_AWARENESS_GROUPS", refused=True),
    _of(f"{_NO_EFFECT} (labels of a request stand in NSM_NETWORK_SERVICES)", "NSM_LABELS", "NSM_MECHANISM"),
    _of("SR-IOV: only virtual interfaces are made", "NSM_SRIOV_TOKENS_*"),
)
_NSE = (
    _of(_NO_EFFECT, "NSM_BASE_DIR"),
    _of("SR-IOV: only virtual interfaces are made", "NSM_SRIOV_TOKENS_*"),
)
_KUBELET = (
    _of("the API of Kubernetes: nsm run registry-k8s reads them", "NSM_NAMESPACE", "NSM_KUBELET_QPS"),
)

UNSERVED: Mapping[str, tuple[Unserved, ...]] = {
    "NsmgrSettings": EVERYWHERE,
    "ForwarderSettings": (*_FORWARDER, *EVERYWHERE),
    "OvsForwarderSettings": (_SRIOV, *EVERYWHERE),
    "RegistrySettings": (*_KUBELET, *EVERYWHERE),
    "KubernetesRegistrySettings": EVERYWHERE,
    "ExcludePrefixesSettings": EVERYWHERE,
    "AdmissionWebhookSettings": EVERYWHERE,
    "NodeAgentSettings": EVERYWHERE,
    "NodeCleanupSettings": EVERYWHERE,
    "NscSettings": (*_NSC, *EVERYWHERE),
    "NscInitSettings": (*_NSC, *EVERYWHERE),
    "NseSettings": (*_NSE, *EVERYWHERE),
}
"""What each role is asked for in vain, by the name of its settings: nobody has to load those of all roles."""


def notices(cls: type[Common], environment: Mapping[str, str], also: Iterable[str] = ()) -> list[str]:
    """Return one line for each feature that is asked for in vain, and for each unknown variable.

    ``also``: variables that the role reads besides its settings. Raises Invalid for what would not be done
    as asked.
    """
    features = next((UNSERVED[one.__name__] for one in cls.__mro__ if one.__name__ in UNSERVED), EVERYWHERE)
    lines = []
    for feature in features:
        asked = feature.asked_by(environment)
        if not asked:
            continue
        line = f"{', '.join(sorted(asked))}: not served here: {feature.feature}"
        if feature.refused:
            raise Invalid(line, remedy=f"unset {', '.join(sorted(asked))}")
        lines.append(line)
    known = variables(cls) | set(also)
    known |= _OWN | _OF_FORWARDERS | _OF_CLIENTS
    for name in sorted(environment):
        if name in known or not name.startswith(PREFIX) or _OF_KUBERNETES.fullmatch(name):
            continue
        if not any(feature.knows(name) for feature in features):
            near = nearest(name, {*known, *(n for f in features for n in f.variables if not n.endswith("*"))})
            lines.append(f"{name}: unknown here, ignored" + (f"; did you mean {near}?" if near else ""))
    return lines
