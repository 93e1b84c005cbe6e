"""The disk of the state directory is full: errors say so, nothing is half done, and the mesh works on."""

import contextlib
import subprocess

import pytest
from mesh_lab import Lab, documents, ping, responder, until

pytestmark = pytest.mark.root

SERVICE = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: fresh}
spec: {payload: IP}
"""


@pytest.fixture(scope="module")
def mesh():
    """Bring a mesh up whose state directory is a file system of one mebibyte."""
    with Lab() as lab:
        lab.state.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(lab.state)], check=True)
        try:
            lab.up()
            lab.apply(responder()).ok()
            yield lab
            lab.nsm("down").ok()
        finally:
            subprocess.run(["umount", "--lazy", str(lab.state)], check=True)


@pytest.fixture
def filler(mesh):
    """Fill the file system to the last byte, and make room again afterwards."""
    path = mesh.state / "files" / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size):
                    pass
    yield path
    path.unlink(missing_ok=True)


def test_it_says_so_and_works_on(mesh, filler):
    """Services and documents are refused with the file's name; wires still come and go."""
    done = mesh.apply(SERVICE).fails(str(mesh.state / "registry.db"), "disk is full", "->")
    assert "Traceback" not in done.text
    mesh.apply(responder("other", "other", "172.28.0.0/24")).fails(
        f"{mesh.state / 'documents.json'} cannot be written: No space left on device", "make room"
    )
    assert [row["name"] for row in mesh.get("services")] == ["ping"]
    assert [row["name"] for row in mesh.get("endpoints")] == ["responder"]
    assert mesh.spaces() == ["responder"]
    space = mesh.namespace("c")
    mesh.nsm("connect", "kernel://ping/nsm-1", "--netns", space).ok()
    assert ping(space, "172.30.0.0")
    mesh.nsm("disconnect", "--netns", space).ok()
    mesh.nsm("delete", "endpoint", "responder").fails("documents.json cannot be written", "make room")
    assert mesh.row("endpoints", "responder")["state"] == "ready"


def test_with_room_all_is_well_again(mesh, filler):
    """As soon as there is room the same commands succeed, and nothing was lost."""
    filler.unlink()
    mesh.apply(documents(SERVICE, responder("other", "other", "172.28.0.0/24"))).ok()
    assert [row["name"] for row in mesh.get("endpoints")] == ["other", "responder"]
    mesh.nsm("delete", "endpoint", "other").ok()
    mesh.nsm("delete", "service", "fresh", "other").ok()
    until(lambda: [row["name"] for row in mesh.get("endpoints")] == ["responder"])
