"""Held files: one descriptor each, a path that stays, and closed with the last who needs it."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from rpc_helpers import open_descriptors

from nsmesh.rpc.files import Files


def opened(path):
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    found = os.fstat(fd)
    return (found.st_dev, found.st_ino), fd


def test_two_owners_share_one_descriptor(tmp_path):
    """The second descriptor of a file is closed; the path is the same for both, until both have let go."""
    before = open_descriptors()
    files = Files()
    inode, fd = opened(tmp_path)
    path = files.adopt("a", inode, fd)
    assert files.adopt("b", *opened(tmp_path)) == path
    assert open_descriptors() == before + 1
    assert Path(path).samefile(tmp_path)
    assert files.path("a", inode) == files.path("b", inode) == path
    files.release("a")
    assert files.path("a", inode) is None
    assert files.path("b", inode) == path
    files.release("b")
    assert len(files) == 0
    assert open_descriptors() == before


def test_a_file_is_nothing_to_who_does_not_own_it(tmp_path):
    """Neither by inode nor by path; who is given the path by its owner may share it."""
    files = Files()
    inode, fd = opened(tmp_path)
    path = files.adopt("a", inode, fd)
    assert files.path("b", inode) is None
    assert files.inode("b", path) is None
    assert files.share("b", path) == inode
    assert files.inode("b", path) == inode
    assert files.share("b", "/proc/1/fd/0") is None
    files.release("a")
    files.release("b")


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["adopt", "share", "keep", "drop", "release"]),
            st.integers(0, 2),
            st.integers(0, 3),
        )
    )
)
def test_nothing_stays_open_and_no_path_moves(steps, tmp_path_factory):
    """Whatever is done in whatever order: a held file keeps its path, and in the end none is open."""
    folder = tmp_path_factory.mktemp("files")
    for number in range(4):
        (folder / str(number)).touch()
    before = open_descriptors()
    files = Files()
    inodes = {number: tuple((folder / str(number)).stat()[i] for i in (2, 1)) for number in range(4)}
    held = {}
    for what, owner, number in steps:
        inode = inodes[number]
        if what == "adopt":
            path = files.adopt(owner, *opened(folder / str(number)))
            assert held.setdefault(inode, path) == path
        elif what == "share" and inode in held:
            assert files.share(owner, held[inode]) == inode
        elif what == "keep":
            files.keep(owner, {inode})
        elif what == "drop":
            files.drop(owner, inode)
        elif what == "release":
            files.release(owner)
        needed = {one for one in inodes.values() if any(files.path(who, one) for who in range(3))}
        held = {one: path for one, path in held.items() if one in needed}
        assert len(files) == len(needed)
        assert open_descriptors() == before + len(needed)
    for owner in range(3):
        files.release(owner)
    assert open_descriptors() == before
