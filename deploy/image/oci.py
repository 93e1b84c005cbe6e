"""Write the image as an OCI layout in a tar, where no Docker engine is.

    oci.py OUT.tar [--name NAME] [--wheel FILE]

``ctr -n k8s.io images import OUT.tar`` takes it, and so do skopeo and podman. Times and owners are fixed:
equal inputs give equal digests. The image is the one that the Dockerfile makes (see ``rootfs.py``).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import rootfs

NAME = "localhost/nsmesh/nsm:latest"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"


def layer(root: Path) -> bytes:
    """Return the tar of everything below ``root``, in order of names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(root.rglob("*")):
            info = tar.gettarinfo(path, str(path.relative_to(root)))
            info.uid = info.gid = info.mtime = 0
            info.uname = info.gname = ""
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    return buffer.getvalue()


class Layout:
    """The files of an OCI image layout, growing."""

    def __init__(self) -> None:
        self.files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(self, kind: str, data: bytes) -> dict[str, object]:
        """Add a blob and return its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        self.files[f"blobs/sha256/{digest}"] = data
        return {"mediaType": f"{OCI}.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    def write(self, out: Path) -> None:
        """Write the layout as a tar."""
        with tarfile.open(out, "w") as tar:
            for name, data in self.files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def image(name: str, content: bytes) -> Layout:
    """Return the layout of an image with one layer; its entry point is ``nsm``."""
    layout = Layout()
    config = {
        "architecture": MACHINES[os.uname().machine],
        "os": "linux",
        "config": {
            "Env": [f"PATH={PATH}", "PYTHONDONTWRITEBYTECODE=1", "NSM_RESOLVER_FILE=/etc/resolv.conf"],
            "Entrypoint": ["/usr/bin/nsm"],
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest()]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": layout.blob("config.v1+json", json.dumps(config).encode()),
        "layers": [layout.blob("layer.v1.tar+gzip", gzip.compress(content, 6, mtime=0))],
    }
    entry = layout.blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    layout.files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return layout


def main() -> None:
    """Read the arguments, make the root file system in a temporary folder, and pack it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--name", default=NAME)
    parser.add_argument("--wheel", type=Path, help="built already; else it is built from this tree")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "root")
        place.mkdir()
        rootfs.make(place, arguments.wheel or rootfs.wheel(Path(folder)))
        content = layer(place)
    image(arguments.name, content).write(arguments.out)
    packed = arguments.out.stat().st_size
    sys.stdout.write(
        f"{arguments.out}: {arguments.name}, {packed / 1e6:.0f} MB packed, "
        f"{len(content) / 1e6:.0f} MB unpacked\n"
    )


if __name__ == "__main__":
    main()
