"""Variables that a role is given in vain are told, each feature in one line."""

from __future__ import annotations

import pytest

from nsmesh.chains.settings import (
    ForwarderSettings,
    IcmpResponderSettings,
    NseSettings,
    NsmgrSettings,
    RegistrySettings,
)
from nsmesh.chains.settings_nsc import NscSettings
from nsmesh.chains.variables import notices
from nsmesh.core.errors import Invalid
from nsmesh.model.settings import load

UPSTREAM = {
    NsmgrSettings: "NAME LISTEN_ON REGISTRY_URL DIAL_TIMEOUT FORWARDER_NETWORK_SERVICE_NAME LOG_LEVEL"
    " MAX_TOKEN_LIFETIME REGISTRY_CLIENT_POLICIES REGISTRY_SERVER_POLICIES",
    NscSettings: "NAME DIAL_TIMEOUT REQUEST_TIMEOUT NETWORK_SERVICES LABELS MECHANISM AWARENESS_GROUPS"
    " LOCAL_DNS_SERVER_ENABLED LOCAL_DNS_SERVER_ADDRESS LIVENESS_CHECK_ENABLED LIVENESS_CHECK_INTERVAL"
    " LIVENESS_CHECK_TIMEOUT LOG_LEVEL MAX_TOKEN_LIFETIME CONNECT_TO",
    NseSettings: "NAME SERVICE_NAMES PAYLOAD LABELS REGISTER_SERVICE UNREGISTER_ITSELF BASE_DIR LOG_LEVEL"
    " MAX_TOKEN_LIFETIME REGISTRY_CLIENT_POLICIES CONNECT_TO",
    RegistrySettings: "LISTEN_ON PROXY_REGISTRY_URL EXPIRE_PERIOD NAMESPACE KUBELET_QPS LOG_LEVEL"
    " MAX_TOKEN_LIFETIME REGISTRY_CLIENT_POLICIES REGISTRY_SERVER_POLICIES",
    ForwarderSettings: "NAME LABELS NSNAME CONNECT_TO LISTEN_ON MAX_TOKEN_LIFETIME DIAL_TIMEOUT"
    " RESOURCE_POLL_TIMEOUT DEVICE_PLUGIN_PATH POD_RESOURCES_PATH SRIOV_CONFIG_FILE PCI_DEVICES_PATH"
    " PCI_DRIVERS_PATH CGROUP_PATH VFIO_PATH TUNNEL_IP VXLAN_PORT BRIDGE_NAME DEVICE_SELECTOR_FILE"
    " L2_RESOURCE_SELECTOR_FILE MECHANISM_PRIORITY VPP_API_SOCKET VPP_INIT VPP_INIT_PARAMS"
    " VPP_MIN_OPERATION_TIMEOUT PROMETHEUS_LISTEN_ON PROMETHEUS_CA_FILE PROMETHEUS_KEY_FILE"
    " PROMETHEUS_CERT_FILE PROMETHEUS_MONITOR_CERTIFICATE PROMETHEUS_SERVER_HEADER_TIMEOUT"
    " PROMETHEUS_MAX_BIND_THRESHOLD LOG_LEVEL REGISTRY_CLIENT_POLICIES",
}
COMMON = " OPEN_TELEMETRY_ENDPOINT METRICS_EXPORT_INTERVAL PPROF_ENABLED PPROF_LISTEN_ON"


@pytest.mark.parametrize("cls", UPSTREAM)
def test_every_variable_of_nsm_is_known(cls):
    """No variable that NSM's own component reads is called unknown."""
    names = (UPSTREAM[cls] + COMMON).split()
    environment = {f"NSM_{name}": "1" for name in names if name != "AWARENESS_GROUPS"}
    assert not [line for line in notices(cls, environment) if "unknown" in line]


def test_a_feature_is_told_once():
    """All variables of one missing feature share a line."""
    (line,) = notices(NsmgrSettings, {"NSM_PPROF_ENABLED": "true", "NSM_PPROF_LISTEN_ON": "localhost:6060"})
    assert line == "NSM_PPROF_ENABLED, NSM_PPROF_LISTEN_ON: not served here: pprof profiles"


def test_what_asks_for_nothing_is_not_told():
    """A variable that switches a missing feature off is as good as none."""
    quiet = {"NSM_PPROF_ENABLED": "false", "NSM_LOCAL_DNS_SERVER_ENABLED": "False", "TELEMETRY": ""}
    assert notices(NscSettings, quiet) == []
    assert notices(ForwarderSettings, {"NSM_SRIOV_CONFIG_FILE": ""}) == []


def test_what_would_be_done_otherwise_is_refused():
    """Addresses that were allowed to overlap are not silently handled in another way."""
    with pytest.raises(Invalid, match="NSM_AWARENESS_GROUPS"):
        notices(NscSettings, {"NSM_AWARENESS_GROUPS": "[kernel://a],[kernel://b]"})


def test_a_misspelt_variable_is_told_with_the_nearest():
    """Nobody wonders why a setting has no effect."""
    (line,) = notices(NscSettings, {"NSM_NETWORK_SERVICE": "kernel://a"})
    assert line == "NSM_NETWORK_SERVICE: unknown here, ignored; did you mean NSM_NETWORK_SERVICES?"


def test_what_a_cluster_sets_by_itself_is_not_told():
    """A Service named nsm-registry puts variables into every pod of its namespace; they are no mistake."""
    environment = dict.fromkeys(
        ("NSM_REGISTRY_SERVICE_HOST", "NSM_REGISTRY_PORT_5002_TCP_ADDR", "NSM_REGISTRY_SERVICE_PORT"), "1"
    )
    assert notices(NsmgrSettings, environment) == []


def test_options_of_an_endpoint_are_known():
    """What a type of endpoint reads besides is handed in."""
    assert notices(NseSettings, {"NSM_CIDR_PREFIX": "10.0.0.0/8"}, ["NSM_CIDR_PREFIX"]) == []
    assert notices(IcmpResponderSettings, {"NSM_BASE_DIR": "./"})


def test_the_responder_has_the_defaults_of_nsm():
    """Without any variable it is icmp-server, provides icmp-responder and leaves its record to run out."""
    settings = load(IcmpResponderSettings, {})
    assert settings.name == "icmp-server"
    assert settings.service_names == ("icmp-responder",)
    assert not settings.unregister_itself
