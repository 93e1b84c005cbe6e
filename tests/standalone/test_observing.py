"""What a whole mesh tells of itself: metrics of all its processes at one address, and what endpoints say."""

import os
import signal
import socket
import urllib.request

import pytest
from mesh_lab import documents, ping_pid, responder, until
from prometheus_client.parser import text_string_to_metric_families

pytestmark = pytest.mark.root

GUARDED = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: guarded}
spec:
  payload: IP
  matches:
    - source_selector: {app: guard}
      routes: [{destination_selector: {app: responder}}]
    - routes: [{destination_selector: {app: guard}}]
---
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: guard}
spec:
  type: firewall
  services: [guarded]
  labels: {app: guard}
  options: {default: deny, rules: [{name: pings, action: allow, protocol: icmp}]}
---
apiVersion: nsmesh/v1
kind: Workload
metadata:
  name: box
  annotations:
    networkservicemesh.io: kernel://guarded/nsm-1
spec:
  command: [sleep, "1000"]
"""


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples, name, **labels):
    return sum(
        sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
    )


@pytest.mark.parametrize("mode", [(), ("--separate",)])
def test_one_address_tells_of_all_processes(lab, monkeypatch, mode):
    """Roles, elements, wires, the registry and the firewall's rules are counted, each with its process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PROMETHEUS", "true")
    monkeypatch.setenv("NSM_PROMETHEUS_LISTEN_ON", f"127.0.0.1:{port}")
    lab.up(*mode)
    lab.apply(documents(responder(service="guarded"), GUARDED)).ok()
    row = lab.row("connections", "box-0")
    address = row["peer_address"][0].partition("/")[0]
    until(lambda: ping_pid(lab.row("clients", "box")["pid"], address))
    samples = scrape(port)
    assert {"guard", "responder"} < {sample.labels["process"] for sample in samples}
    assert value(samples, "nsm_role_requests_total", verb="request", status="OK", process="responder") >= 1
    assert value(samples, "nsm_element_seconds_count", element="discover_forwarder", verb="request") >= 1
    assert value(samples, "nsm_begin_connections", process="responder", chain="endpoint responder") == 1
    assert value(samples, "nsm_registry_entries", kind="endpoints") >= 3
    assert value(samples, "nsm_rpc_handshakes_total", result="ok") >= 1
    assert value(samples, "nsm_firewall_packets_total", process="guard", rule="pings") >= 1
    assert value(samples, "nsm_firewall_bytes_total", process="guard", rule="pings") >= 84
    assert value(samples, "nsm_role_seconds_count", verb="request", process="responder") >= 1
    if mode:
        pid = next(row["pid"] for row in lab.status()["roles"] if row["role"] == "registry")
        os.kill(pid, signal.SIGKILL)
        until(lambda: value(scrape(port), "nsm_supervisor_restarts_total", unit="registry") == 1)
        assert value(scrape(port), "nsm_supervisor_deaths_total", unit="registry") == 1


def test_endpoints_say_how_they_are(lab):
    """The rules of a firewall are counted in ``nsm get endpoints -o json``, and shown by describe."""
    lab.up()
    lab.apply(documents(responder(service="guarded"), GUARDED)).ok()
    address = lab.row("connections", "box-0")["peer_address"][0].partition("/")[0]
    until(lambda: ping_pid(lab.row("clients", "box")["pid"], address))
    status = lab.row("endpoints", "guard")["status"]
    counted = {one["rule"]: one["packets"] for one in status["rules"]}
    assert counted["pings"] >= 1
    assert lab.row("endpoints", "responder")["status"] == {}
    shown = lab.nsm("describe", "endpoint", "guard").ok().out
    assert "rules:" in shown
    assert "pings" in shown
