"""The image of all roles, as the cluster loads it."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import tarfile

import lab_cluster as lab
import pytest

MOST = 120e6
"""Bytes that the image may take on a node's disk."""
UNCHECKED = 0b01
"""What the second word of byte code says that is taken as it is, whatever its source's time (PEP 552)."""


@pytest.fixture(scope="module")
def content(cluster: None) -> tarfile.TarFile:
    """Return the only layer of the image."""
    with tarfile.open(lab.LAB / "img/nsmesh.tar") as image:

        def blob(digest: str) -> bytes:
            file = image.extractfile(f"blobs/sha256/{digest.removeprefix('sha256:')}")
            assert file is not None
            return file.read()

        index = image.extractfile("index.json")
        assert index is not None
        manifest = json.loads(blob(json.load(index)["manifests"][0]["digest"]))
        (layer,) = manifest["layers"]
        return tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(layer["digest"]))))


def test_it_is_small(content: tarfile.TarFile) -> None:
    """All of it, unpacked, takes less than 120 MB, and there is neither a shell nor a compiler in it."""
    assert sum(one.size for one in content.getmembers()) < MOST
    names = {one.name.rpartition("/")[2] for one in content.getmembers()}
    assert not names & {"sh", "bash", "dash", "busybox", "apt", "dpkg", "gcc", "pip"}
    assert {"nsm", "nft", "ip"} <= names


def test_no_package_lacks_a_module(content: tarfile.TarFile) -> None:
    """Each module that a package says it has is there: what is left out by its name hits no other."""
    there = {one.name for one in content.getmembers()}
    records = [name for name in there if name.endswith(".dist-info/RECORD")]
    assert len(records) > 10
    lost = set()
    for record in records:
        file = content.extractfile(record)
        assert file is not None
        folder = record.rsplit("/", 2)[0]
        listed = [line.decode().split(",")[0] for line in file.read().splitlines()]
        lost |= {name for name in listed if name.endswith(".py") and f"{folder}/{name}" not in there}
    assert {name.split("/")[0] for name in lost} <= {"cffi", "pycparser"}, sorted(lost)


def test_nothing_of_the_place_where_it_was_made(content: tarfile.TarFile) -> None:
    """Its temporary folder is empty: libraries that a package brings are there once, where the package is."""
    assert not [one.name for one in content.getmembers() if one.name.startswith("tmp/")]


def test_nothing_is_compiled_when_a_role_starts(content: tarfile.TarFile) -> None:
    """Each of our modules has byte code beside it that no time of a file makes invalid."""
    names = {one.name for one in content.getmembers()}
    ours = [name for name in names if "/dist-packages/nsmesh/" in name and name.endswith(".py")]
    assert len(ours) > 100
    for name in ours:
        folder, _, module = name.rpartition("/")
        code = f"{folder}/__pycache__/{module.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"
        file = content.extractfile(code)
        assert file is not None, f"{name} has no byte code"
        assert struct.unpack("<I", file.read(8)[4:])[0] == UNCHECKED, code
