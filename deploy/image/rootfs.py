"""Make the root file system of the image: Debian's Python, the wheel with what it needs, and a few programs.

    rootfs.py FOLDER [--wheel FILE]

One code path for both ways to an image: the Dockerfile copies FOLDER into an empty image, and ``oci.py``
packs it into a tar without any engine. There is no shell, no package manager and no compiler in it. Python's
byte code is written beside the sources, checked by nobody at run time: the image is read-only, and a role
starts without compiling.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = "usr/local/lib/python{0}.{1}/dist-packages"
"""Where Debian's Python looks for what its administrator installed."""
PROGRAMS = {
    "nft": "nftables",
    "ip": "iproute2",
    "wireguard-go": "wireguard-go",
    "setpriv": "util-linux",
}
"""What roles call, and Debian's package of it: the firewall writes its table with nft, the VPN gateway makes
its tunnel with ip; wireguard-go is for nodes whose kernel has no WireGuard, and setpriv lets it end with its
role."""
UNUSED = (
    "__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "lib2to3", "ensurepip", "distutils",
    "pydoc_data", "config-*", "site-packages", "dist-packages", "curses", "dbm", "venv", "unittest",
    "_pydecimal.py", "turtle.py", "*.pyi", "*.h",
    "_curses*.so", "_dbm.*.so", "_gdbm.*.so", "_tkinter.*.so", "readline.*.so", "nis.*.so", "_crypt.*.so",
    "audioop.*.so", "ossaudiodev.*.so", "_codecs_*.so", "_multibytecodec.*.so", "_test*.so",
    "_ctypes_test.*.so", "_xxtest*.so", "xxlimited*.so", "cffi", "pycparser",
)  # fmt: skip
"""Names, anywhere below Python's library and our packages, that no role reads. Modules in C are among them
for the libraries that they would bring along (Berkeley DB, Kerberos, ncurses), and what compiles for cffi, of
which the cryptography package calls the part in C alone."""
NAMES = {"etc/passwd": "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n",
         "etc/group": "root:x:0:\nnonroot:x:65532:\n",
         "etc/nsswitch.conf": "hosts: files dns\n"}  # fmt: skip
LAUNCHER = """#!{python} -sP
import sys
from nsmesh.cli.main import main
sys.exit(main())
"""


WAITER = """#!{python} -IS
import sys, time
from _socket import AF_UNIX, socket
end = time.monotonic() + float(sys.argv[2])
while socket(AF_UNIX).connect_ex(chr(0) + sys.argv[1][1:]):
    if time.monotonic() > end:
        sys.exit("not all wires are up")
    time.sleep(0.02)
"""
"""nsm-up @NAME SECONDS: ends when the client of its pod has all wires (NSM_UP_SOCKET), or fails after that
time. It waits itself, so that the kubelet hears at once and not at its next look. It imports nothing, and so
costs little."""


def libraries(program: Path) -> list[Path]:
    """Return the shared libraries that the dynamic linker would load for ``program``; none for a script.

    Exits where this machine lacks one: the image would lack it too, and what needs it would fail there.
    """
    with program.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    listing = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    if lost := re.findall(r"(\S+) => not found", listing):
        sys.exit(
            f"error: {program} needs {', '.join(lost)}, missing here\n  -> install the package that has it"
        )
    return [Path(name) for name in re.findall(r"(/\S+\.so\S*)", listing)]


def copy(source: Path, target: Path) -> None:
    """Copy one file, with what a link leads to in place of the link."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)
        target.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def copy_linked(files: Iterable[Path], root: Path) -> None:
    """Copy the libraries that ``files`` need, each at its own path; those of a package are there already."""
    for library in {name for file in files for name in libraries(file)}:
        if not library.resolve().is_relative_to(root.resolve()):
            copy(library, root / library.relative_to("/"))


def unused(name: str) -> bool:
    """Whether nothing of this name is read at run time."""
    return any(fnmatch(name, pattern) for pattern in UNUSED)


def copy_tree(source: Path, target: Path) -> None:
    """Copy a folder without what is unused in it."""
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if not unused(name))
        for name in names:
            if not unused(name):
                path = Path(folder, name)
                copy(path, target / path.relative_to(source))


def objects(root: Path) -> Iterator[Path]:
    """Yield the shared objects below ``root``."""
    yield from (path for path in root.rglob("*.so*") if path.is_file())


def wheel(folder: Path) -> Path:
    """Build the project's wheel into ``folder`` and return it."""
    _pip("wheel", "--no-deps", "--wheel-dir", folder, PROJECT)
    return next(folder.glob("nsmesh-*.whl"))


def _pip(*arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


def python(root: Path) -> None:
    """Copy the interpreter that runs this, and its library, each to its own path."""
    program = Path(os.path.realpath(sys._base_executable))  # type: ignore[attr-defined]  # noqa: SLF001 - the program below a virtual environment has no other name
    copy(program, root / program.relative_to("/"))
    library = Path(sysconfig.get_path("stdlib"))
    copy_tree(library, root / library.relative_to("/"))
    for name, text in (("nsm", LAUNCHER), ("nsm-up", WAITER)):
        launcher = root / "usr/bin" / name
        launcher.write_text(text.format(python=program))
        launcher.chmod(0o755)


def make(root: Path, built: Path) -> None:
    """Make everything below ``root`` from the wheel ``built``."""
    packages = root / PACKAGES.format(*sys.version_info)
    packages.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as folder:
        _pip("install", "--no-compile", "--target", folder, f"{built}[kubernetes,rego]")
        copy_tree(Path(folder), packages)
    shutil.rmtree(packages / "bin", ignore_errors=True)
    python(root)
    for name, package in PROGRAMS.items():
        found = shutil.which(name)
        if found is None:
            sys.exit(f"error: {name} is missing here\n  -> apt-get install {package}")
        copy(Path(found), root / "usr/sbin" / name)
    copy_linked([*objects(root), *(root / "usr/sbin").iterdir(), *(root / "usr/bin").iterdir()], root)
    resolver = Path("/lib") / sysconfig.get_config_var("MULTIARCH")
    for name in ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"):
        if (resolver / name).exists():
            copy(resolver / name, root / (resolver / name).relative_to("/"))
    for name, text in NAMES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("tmp", "proc", "sys", "dev", "run", "var/run", "var/lib/networkservicemesh"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    compile_all(root)


def compile_all(root: Path) -> None:
    """Write byte code beside all sources, as it will be found in the image."""
    compileall.compile_dir(
        root / "usr",
        maxlevels=30,
        quiet=1,
        stripdir=root,
        prependdir="/",
        workers=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )


def main() -> None:
    """Read the arguments and make the root file system."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wheel", type=Path, help="built already; else it is built from this tree")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if any(arguments.folder.iterdir()):
        sys.exit(f"error: {arguments.folder} is not empty\n  -> give a new folder")
    with tempfile.TemporaryDirectory() as folder:
        make(arguments.folder, arguments.wheel or wheel(Path(folder)))


if __name__ == "__main__":
    main()
