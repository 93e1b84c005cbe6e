"""What was applied, kept on disk."""

from dataclasses import replace

import pytest

from nsmesh.core.errors import Unavailable
from nsmesh.model.manifest import Endpoint, Link, Workload, load
from nsmesh.standalone.documents import Documents, key

TEXT = """
apiVersion: nsmesh/v1
kind: Workload
metadata: {name: client, annotations: {networkservicemesh.io: kernel://ping/nsm-1}}
spec: {command: [sleep, "60"]}
---
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: responder}
spec: {type: icmp-responder, services: [ping], options: {cidr_prefix: 172.16.0.0/24}}
---
apiVersion: nsmesh/v1
kind: Link
metadata: {name: uplink}
spec: {ends: [{of: client, interface: eth0}, {of: responder, interface: eth0}], mtu: 1400}
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "documents.json"


@pytest.fixture
def items():
    return load(TEXT, "test")


def test_a_new_start_knows_all(path, items):
    """Documents of each kind come back as they were put, in their order."""
    Documents(path).put(items)
    again = Documents(path)
    assert list(again.known.values()) == items
    assert [type(item) for item in again.known.values()] == [Workload, Endpoint, Link]
    assert [link.name for link in again.of(Link)] == ["uplink"]


def test_the_same_name_takes_the_place(path, items):
    """Putting a document again replaces it; of two kinds one name is two documents."""
    documents = Documents(path)
    client = items[0]
    documents.put(items)
    documents.put([replace(client, command=("true",))])
    documents.put([replace(items[1], name="client")])
    assert [key(item) for item in Documents(path).known.values()] == [
        ("workload", "client"),
        ("endpoint", "responder"),
        ("link", "uplink"),
        ("endpoint", "client"),
    ]
    assert next(Documents(path).of(Workload)).command == ("true",)


def test_dropping_is_remembered(path, items):
    """What was dropped does not come back; what is not known is dropped already."""
    documents = Documents(path)
    documents.put(items)
    documents.drop(("link", "uplink"), ("link", "none"))
    assert [key(item)[0] for item in Documents(path).known.values()] == ["workload", "endpoint"]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"kind": "Pod"}]'])
def test_a_damaged_file_is_set_aside(path, text):
    """A mesh comes up without it, and the file is there to look at."""
    path.write_text(text)
    assert Documents(path).known == {}
    assert not path.exists()
    assert path.with_suffix(".damaged").read_text() == text


def test_what_cannot_be_kept_is_not_known(tmp_path, items):
    """Where a file cannot be written, nothing changes, and the user hears of it."""
    documents = Documents(tmp_path / "gone" / "documents.json")
    with pytest.raises(Unavailable, match="cannot be written"):
        documents.put(items)
    assert documents.known == {}
