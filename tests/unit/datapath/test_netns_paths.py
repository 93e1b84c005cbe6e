import os

import pytest

from nsmesh.core.errors import Invalid, NotFound
from nsmesh.datapath import netns


def test_paths_and_file_urls_are_one():
    """A file URL stands for its path, percent signs and all."""
    assert netns.path_of("/run/netns/x") == "/run/netns/x"
    assert netns.path_of("file:///run/netns/a%20b") == "/run/netns/a b"
    assert netns.path_of(netns.of_pid(7)) == "/proc/7/ns/net"


@pytest.mark.parametrize("location", ["", "inode://4/4026531833", "relative", "http://x/y", "file:relative"])
def test_what_cannot_be_opened_says_so(location):
    """Anything but an absolute path or a file URL is Invalid, with what to give instead."""
    with pytest.raises(Invalid) as caught:
        netns.path_of(location)
    assert caught.value.remedy


def test_a_missing_namespace_is_not_found():
    """A path that leads nowhere is NotFound."""
    with pytest.raises(NotFound):
        netns.open_netns("/run/netns/there-is-no-such-namespace")


@pytest.mark.parametrize("name", ["", "a/b", ".", "..", "a\0b"])
def test_names_stay_inside_their_directory(name):
    """A namespace's name is a plain file name."""
    with pytest.raises(Invalid):
        netns.create(name)
    with pytest.raises(Invalid):
        netns.delete(name)


def test_identity_tells_that_two_paths_are_one_namespace():
    """Path and descriptor of one namespace have the same identity."""
    descriptor = netns.current()
    try:
        assert netns.identity(descriptor) == netns.identity("/proc/thread-self/ns/net")
    finally:
        os.close(descriptor)


def test_deleting_what_is_not_there_is_fine():
    """A second deletion, or one too many, does nothing."""
    netns.delete("there-is-no-such-namespace")
