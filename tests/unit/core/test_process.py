"""What is asked of a process, and of its own descriptors."""

import os
from pathlib import Path

import pytest

from nsmesh.core.process import stat_of


def test_a_descriptor_of_ours_is_what_its_path_leads_to(tmp_path):
    """By the path of a descriptor and by the path of its file the same file is found, also after a change."""
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_text("x")
    other.write_text("y")
    descriptor = os.open(file, os.O_RDONLY)
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    try:
        assert os.path.samestat(stat_of(path), file.stat())
        replacement = os.open(other, os.O_RDONLY)
        os.dup2(replacement, descriptor)
        os.close(replacement)
        assert os.path.samestat(stat_of(path), other.stat())
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("descriptor", ["999999", "0000000001", "01", "-1", "9" * 12, "", "1x"])
def test_what_is_no_descriptor_is_said_of_the_path(descriptor):
    """A closed number, and a text that the kernel would not write, are what ``os.stat`` says of the path."""
    path = f"/proc/{os.getpid()}/fd/{descriptor}"
    if not descriptor:
        assert os.path.samestat(stat_of(path), Path(path).stat())
        return
    with pytest.raises(FileNotFoundError) as raised:
        stat_of(path)
    assert raised.value.filename == path


def test_other_paths_are_asked_as_they_are(tmp_path):
    """Another process's descriptor and a plain path are found by the path alone."""
    assert os.path.samestat(stat_of(str(tmp_path)), tmp_path.stat())
    with pytest.raises(FileNotFoundError):
        stat_of("/proc/0/fd/0")
