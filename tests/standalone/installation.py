"""A second installation of nsmesh: a virtual environment with a copy of ours, under another version."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nsmesh

VERSION = "99.1.0"


class Installation:
    """``python``: its executable. ``edit`` changes its code, to see what a broken or newer one does."""

    def __init__(self, folder: Path) -> None:
        self.package = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages/nsmesh"
        site = self.package.parent
        shutil.copytree(
            Path(nsmesh.__file__).parent, self.package, ignore=shutil.ignore_patterns("__pycache__")
        )
        (folder / "bin").mkdir()
        self.python = folder / "bin" / "python"
        real = Path(sys.executable).resolve()
        self.python.symlink_to(real)
        (folder / "pyvenv.cfg").write_text(f"home = {real.parent}\ninclude-system-site-packages = false\n")
        others = [path for path in sys.path if path.endswith("-packages")]
        (site / "others.pth").write_text("".join(f"{path}\n" for path in others))
        self.edit("__init__.py", nsmesh.__version__, VERSION)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.package / name
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new, 1))
