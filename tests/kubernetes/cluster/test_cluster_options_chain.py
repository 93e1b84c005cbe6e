"""A chain of functions over two nodes: firewall and VPN gateway of examples/secure-intranet, in pods."""

from __future__ import annotations

import base64
import json
from typing import Any

import lab_cluster as lab
import pytest

from nsmesh.model.wireguard import PrivateKey, generate

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

SERVICE = "secure-intranet-connectivity"
EXAMPLE = lab.PROJECT / "examples/secure-intranet"
RULES = [
    {"name": "ping", "action": "allow", "protocol": "icmp"},
    {"name": "intranet", "action": "allow", "protocol": "tcp", "ports": 8080},
]
FETCH = """
import sys, urllib.request
try:
    print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())
except OSError as error:
    print("refused:", error)
"""


def secret(name: str, key: PrivateKey) -> dict[str, Any]:
    """Return a Secret with a private key."""
    text = base64.b64encode(key.reveal()).decode()
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"key": text}}


def function(name: str, node: int, *arguments: str, key: str = "", **variables: str) -> dict[str, Any]:
    """Return a pod of a network function that may change its own network, with a key where it has one."""
    made = lab.container("nse", "run", *arguments, **variables)
    made["securityContext"] = {"privileged": True}
    pod = lab.pod(name, node, made, lab.application())
    if key:
        made["volumeMounts"] = [
            *made["volumeMounts"],
            {"name": "key", "mountPath": "/keys", "readOnly": True},
        ]
        volume = {"name": "key", "secret": {"secretName": key, "defaultMode": 0o400}}
        pod["spec"]["volumes"] = [*pod["spec"]["volumes"], volume]
    return pod


def address_of(namespace: str, name: str) -> str:
    """Return the address of a pod that runs."""
    return str(lab.objects("pod", name, "-n", namespace)["status"]["podIP"])


def test_the_article_s_service(namespace: str, options: None) -> None:
    """Ping and port 8080 pass to the corporate site behind the tunnel, port 80 is refused by the firewall."""
    ours, theirs = generate(), generate()
    lab.create(namespace, secret("gateway", ours), secret("corporate", theirs))
    lab.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE / "service.yaml"))
    back = [{"public_key": ours.public, "allowed_ips": ["10.99.0.1/32"]}]
    lab.create(
        namespace,
        function(
            "corporate", 2, "vpn-site", key="corporate", NSM_TITLE="corporate intranet",
            NSM_PRIVATE_KEY_FILE="/keys/key", NSM_ADDRESSES="10.99.0.2/30,10.20.0.1/24",
            NSM_PEERS=json.dumps(back),
        ),
        function(
            "firewall", 2, "nse", "firewall", NSM_SERVICE_NAMES=SERVICE, NSM_REGISTER_SERVICE="false",
            NSM_LABELS="app:firewall", NSM_RULES=json.dumps(RULES),
        ),
    )  # fmt: skip
    lab.ready(namespace, "corporate", "firewall")
    peer = {
        "public_key": theirs.public,
        "endpoint": f"{address_of(namespace, 'corporate')}:51820",
        "allowed_ips": ["10.99.0.2/32", "10.20.0.0/24"],
    }
    lab.create(
        namespace,
        function(
            "gateway", 1, "nse", "vpn-gateway", key="gateway", NSM_SERVICE_NAMES=SERVICE,
            NSM_REGISTER_SERVICE="false", NSM_LABELS="app:vpn-gateway", NSM_CIDR_PREFIX="172.16.1.0/24",
            NSM_PRIVATE_KEY_FILE="/keys/key", NSM_ADDRESSES="10.99.0.1/30", NSM_PEERS=json.dumps([peer]),
        ),
    )  # fmt: skip
    lab.ready(namespace, "gateway")
    lab.create(namespace, lab.client("nsc", 1, f"kernel://{SERVICE}/nsm-1"))
    lab.ready(namespace, "nsc")
    lab.until("the ping", lambda: lab.pings(namespace, "nsc", "10.20.0.1"), 20)
    assert "corporate intranet" in lab.python(namespace, "nsc", "nsc", FETCH, "http://10.20.0.1:8080")
    assert "refused:" in lab.python(namespace, "nsc", "nsc", FETCH, "http://10.20.0.1:80")
    (wire,) = lab.objects("networkserviceconnections", "-n", namespace)["items"]
    path = wire["status"]["path"]
    assert [one for one in path if namespace in one] == [
        f"{one}.{namespace}" for one in ("nsc", "firewall", "gateway")
    ]
    assert len(path) == 11  # to the firewall by two managers and two forwarders, and so to the gateway
