"""Every variable that NSM's components read: served here with NSM's default, or told in one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nsmesh.chains.settings import (
    FirewallSettings,
    ForwarderSettings,
    IcmpResponderSettings,
    KubernetesRegistrySettings,
    NsmgrSettings,
    RegistrySettings,
)
from nsmesh.chains.settings_kubernetes import AdmissionWebhookSettings, ExcludePrefixesSettings
from nsmesh.chains.settings_nsc import NscInitSettings, NscSettings
from nsmesh.chains.settings_ovs import OvsForwarderSettings
from nsmesh.chains.variables import notices
from nsmesh.core.errors import Invalid
from nsmesh.endpoints.options import describe_options, read_options
from nsmesh.endpoints.run import options_of
from nsmesh.model.settings import describe, load

TABLE = json.loads((Path(__file__).parents[2] / "data" / "nsm-variables.json").read_text())
"""By component, the default of each variable; null where it has none."""
COMPONENTS = {
    "cmd-nsmgr": (NsmgrSettings, None),
    "cmd-nsc": (NscSettings, None),
    "cmd-nsc-init": (NscInitSettings, None),
    "cmd-nse-icmp-responder": (IcmpResponderSettings, "icmp-responder"),
    "cmd-nse-firewall-vpp": (FirewallSettings, "firewall"),
    "cmd-registry-memory": (RegistrySettings, None),
    "cmd-registry-k8s": (KubernetesRegistrySettings, None),
    "cmd-exclude-prefixes-k8s": (ExcludePrefixesSettings, None),
    "cmd-admission-webhook-k8s": (AdmissionWebhookSettings, None),
    "cmd-forwarder-vpp": (ForwarderSettings, None),
    "cmd-forwarder-ovs": (OvsForwarderSettings, None),
    "cmd-forwarder-sriov": (ForwarderSettings, None),
}
"""Who takes the place of which component: its settings, and the type of an endpoint."""
OTHERWISE = {
    ("cmd-registry-memory", "NSM_EXPIRE_PERIOD"): "not used there: a minute is fixed",
    ("cmd-forwarder-vpp", "NSM_VXLAN_PORT"): "0 stands for 4789 there",
    ("cmd-forwarder-ovs", "NSM_MAX_TOKEN_LIFETIME"): "one for both forwarders of a node",
    ("cmd-forwarder-ovs", "NSM_DIAL_TIMEOUT"): "50 ms are too few on a busy node",
    ("cmd-forwarder-sriov", "NSM_DIAL_TIMEOUT"): "50 ms are too few on a busy node",
    ("cmd-forwarder-sriov", "NSM_NAME"): "one forwarder stands for three",
    ("cmd-forwarder-sriov", "NSM_CONNECT_TO"): "one forwarder stands for three",
    ("cmd-nse-firewall-vpp", "NSM_LISTEN_ON"): "the same socket, as the other endpoints call it",
    ("cmd-nse-firewall-vpp", "NSM_ACL_CONFIG_PATH"): "rules may stand in the options: no file need be there",
}
"""Defaults that differ, and why."""
ROWS = [(name, variable) for name, variables in TABLE.items() for variable in variables]
SAMPLES = {"NSM_AWARENESS_GROUPS": "[kernel://a]", "NSM_BASE_DIR": "./", "NSM_NAMESPACE": "nsm"}


def served(component):
    """Return the variables that are read for a component, with how each default would be read."""
    cls, kind = COMPONENTS[component]
    options = options_of(kind) if kind else None
    return cls, options, kind


def read(component, environment):
    """Return what a component's settings and options are with an environment."""
    cls, options, kind = served(component)
    found = {item.variable: getattr(load(cls, environment), item.field) for item in describe(cls)}
    if options is not None:
        made = read_options(options, None, environment, endpoint=kind)
        found |= {item.variable: getattr(made, item.field) for item in describe_options(options)}
    return found


@pytest.mark.parametrize(("component", "variable"), ROWS)
def test_a_variable_is_served_or_told(component, variable):
    """Served ones have NSM's default, unless it is said why not; all others have their line."""
    cls, options, _ = served(component)
    default = TABLE[component][variable]
    values = read(component, {})
    if variable in values:
        if default is not None and (component, variable) not in OTHERWISE:
            assert values[variable] == read(component, {variable: default})[variable]
        return
    extra = [item.variable for item in describe_options(options)] if options else []
    environment = {variable: SAMPLES.get(variable) or "something"}
    try:
        (line,) = notices(cls, environment, extra)
    except Invalid as error:
        line = str(error)
    assert "unknown" not in line
    assert line.startswith(variable)
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize("component", TABLE)
def test_the_manifests_of_nsm_start_ours(component):
    """With every variable at NSM's default nothing is refused, and no line calls one unknown."""
    cls, options, _ = served(component)
    environment = {name: value for name, value in TABLE[component].items() if value is not None}
    read(component, environment)
    extra = [item.variable for item in describe_options(options)] if options else []
    assert not [line for line in notices(cls, environment, extra) if "unknown" in line]


def test_what_differs_does():
    """No reason is left standing for a default that is the same by now."""
    for component, variable in OTHERWISE:
        default = TABLE[component][variable]
        values = read(component, {})
        assert variable in values
        assert values[variable] != read(component, {variable: default})[variable], (component, variable)
