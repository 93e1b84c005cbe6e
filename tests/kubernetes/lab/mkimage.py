"""Write a one-layer OCI image as a tar that `ctr images import` takes: no registry, no image tools.

    mkimage.py OUT.tar NAME [--add SOURCE[:TARGET]]... [--program PATH]... [--link TARGET:PATH]...
               [--skip PATTERN]... [--path FOLDER] [--entrypoint PROGRAM]

--add copies a file or a folder, --program an executable to /usr/bin, both with the shared libraries needed;
--skip leaves out what matches (a shell pattern on the path inside the image); --link makes a symbolic link;
--path is searched for programs first.
Times and owners are fixed, so equal inputs give equal digests.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
from fnmatch import fnmatch
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def shared_libraries(program: str) -> list[str]:
    """Absolute paths of the libraries that the dynamic linker would load for `program`; none for a script."""
    with Path(program).open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+\.so\S*)", listing)


def layer(  # noqa: C901 - what goes in is told in one place
    add: list[str], programs: list[str], links: list[str], skip: list[str]
) -> bytes:
    """Return the uncompressed layer; the first file that claims a path wins."""
    buffer = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def put(source: str, target: str) -> None:
            target = target.strip("/")
            linked: list[str] = []

            def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
                if (
                    info.name in seen
                    or "__pycache__" in info.name
                    or any(fnmatch(info.name, s) for s in skip)
                ):
                    return None
                seen.add(info.name)
                if info.isfile() and (info.mode & 0o111 or info.name.endswith(".so")):
                    linked.append(source + info.name.removeprefix(target))
                info.uid = info.gid = 0
                info.uname = info.gname = ""
                info.mtime = 0
                return info

            tar.add(source, arcname=target, filter=plain)
            for library in sorted({name for file in linked for name in shared_libraries(file)}):
                put(os.path.realpath(library), library)

        for folder in ("tmp", "proc", "sys", "dev", "etc", "run"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(info)
        for item in add:
            source, _, target = item.partition(":")
            put(source, target or source)
        for program in programs:
            found = shutil.which(program)
            if found is None:
                raise SystemExit(f"no such program: {program}")
            put(os.path.realpath(found), f"/usr/bin/{Path(program).name}")
        for item in links:
            target, _, path = item.partition(":")
            info = tarfile.TarInfo(path.strip("/"))
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def image(name: str, content: bytes, entrypoint: str | None, path: str) -> dict[str, bytes]:
    """Return the files of an OCI image layout with one image."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def blob(kind: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        files[f"blobs/sha256/{digest}"] = data
        return {
            "mediaType": f"application/vnd.oci.image.{kind}",
            "digest": f"sha256:{digest}",
            "size": len(data),
        }

    diff_id = "sha256:" + hashlib.sha256(content).hexdigest()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Env": [f"PATH={path}"], "Entrypoint": [entrypoint] if entrypoint else None},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", json.dumps(config).encode()),
        "layers": [blob("layer.v1.tar+gzip", gzip.compress(content, 1, mtime=0))],
    }
    entry = blob("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out")
    parser.add_argument("name")
    for option in ("add", "program", "link", "skip"):
        parser.add_argument(f"--{option}", action="append", default=[])
    parser.add_argument("--entrypoint")
    parser.add_argument("--path")
    options = parser.parse_args()
    content = layer(options.add, options.program, options.link, options.skip)
    search = f"{options.path}:{PATH}" if options.path else PATH
    with tarfile.open(options.out, "w") as tar:
        for name, data in image(options.name, content, options.entrypoint, search).items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    size = Path(options.out).stat().st_size
    print(f"{options.name}: {size / 1e6:.1f} MB")  # noqa: T201 - a script


if __name__ == "__main__":
    main()
