"""The generated code in the tree is what the .proto files say."""

import subprocess
import sys
from pathlib import Path

import nsmesh

PACKAGE = Path(nsmesh.__file__).parent
GENERATED = sorted(PACKAGE.glob("api/*_pb2.py*"))


def test_regenerated_code_is_the_committed_code(tmp_path):
    """Running the compiler again gives, byte for byte, what is committed."""
    protos = sorted(str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.glob("api/*.proto"))
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"--python_out={tmp_path}",
            f"--pyi_out={tmp_path}",
            *protos,
        ],
        cwd=PACKAGE.parent,
        check=True,
    )
    made = {path.name: path.read_bytes() for path in (tmp_path / "nsmesh" / "api").iterdir()}
    assert {path.name for path in GENERATED} == set(made)
    for path in GENERATED:
        assert path.read_bytes() == made[path.name], f"{path.name}: run the compiler again"


def test_contract_names_and_numbers():
    """Packages, messages, fields and numbers are those of the wire contract."""
    from nsmesh.api import (
        connection_pb2,
        connectioncontext_pb2,
        delegated_pb2,
        ipam_pb2,
        networkservice_pb2,
        registry_pb2,
        workload_pb2,
    )

    def fields(message):
        return {field.number: field.name for field in message.DESCRIPTOR.fields}

    assert networkservice_pb2.DESCRIPTOR.package == "networkservice"
    assert connection_pb2.DESCRIPTOR.package == "connection"
    assert connectioncontext_pb2.DESCRIPTOR.package == "connectioncontext"
    assert registry_pb2.DESCRIPTOR.package == "registry"
    assert ipam_pb2.DESCRIPTOR.package == "ipam"
    assert workload_pb2.DESCRIPTOR.package == ""
    assert fields(connection_pb2.Connection) == {
        1: "id",
        2: "network_service",
        3: "mechanism",
        4: "context",
        5: "labels",
        6: "path",
        7: "network_service_endpoint_name",
        8: "payload",
        9: "state",
    }
    assert fields(connectioncontext_pb2.IPContext) == {
        1: "src_ip_addrs",
        2: "dst_ip_addrs",
        3: "src_ip_required",
        4: "dst_ip_required",
        5: "src_routes",
        6: "dst_routes",
        7: "excluded_prefixes",
        8: "ip_neighbors",
        9: "extra_prefix_request",
        10: "extra_prefixes",
        11: "policies",
    }
    assert fields(connectioncontext_pb2.ConnectionContext)[5] == "MTU"
    assert fields(connectioncontext_pb2.Route) == {1: "prefix", 2: "nextHop"}
    assert fields(registry_pb2.NetworkServiceEndpoint) == {
        1: "name",
        2: "network_service_names",
        3: "network_service_labels",
        4: "url",
        5: "expiration_time",
        6: "initial_registration_time",
        7: "path_ids",
    }
    assert fields(ipam_pb2.PrefixResponse) == {2: "prefix", 3: "exclude_prefixes"}
    assert delegated_pb2.DESCRIPTOR.package == "spire.api.agent.delegatedidentity.v1"
    assert fields(delegated_pb2.X509Svid) == {1: "cert_chain", 2: "id", 3: "expires_at", 4: "hint"}
    assert fields(delegated_pb2.X509SvidWithKey) == {1: "x509_svid", 2: "x509_svid_key"}
    assert fields(delegated_pb2.SpiffeId) == {1: "trust_domain", 2: "path"}
    assert fields(delegated_pb2.SubscribeToX509SVIDsRequest) == {1: "selectors", 2: "pid"}
    assert fields(delegated_pb2.SubscribeToX509SVIDsResponse) == {1: "x509_svids", 2: "federates_with"}
    assert fields(delegated_pb2.SubscribeToX509BundlesResponse) == {1: "ca_certificates"}
    assert set(workload_pb2.DESCRIPTOR.services_by_name["SpiffeWorkloadAPI"].methods_by_name) == {
        "FetchX509SVID",
        "FetchX509Bundles",
        "FetchJWTSVID",
        "FetchJWTBundles",
        "ValidateJWTSVID",
    }
