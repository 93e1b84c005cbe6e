"""What the image is made of: each shared library that a program of it needs."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOTFS = Path(__file__).parents[2] / "deploy/image/rootfs.py"
PROGRAM = Path("/bin/true")


def test_a_library_that_is_missing_is_told(tmp_path):
    """No image is made without it; a whole program gives its libraries, and a script none."""
    libraries = runpy.run_path(str(ROOTFS))["libraries"]
    assert any(one.name == "libc.so.6" for one in libraries(PROGRAM))
    broken = tmp_path / "broken"
    broken.write_bytes(PROGRAM.read_bytes().replace(b"libc.so.6", b"libq.so.6"))
    broken.chmod(0o755)
    with pytest.raises(SystemExit, match=r"broken needs libq\.so\.6"):
        libraries(broken)
    script = tmp_path / "script"
    script.write_text("#!/bin/true\n")
    assert libraries(script) == []
