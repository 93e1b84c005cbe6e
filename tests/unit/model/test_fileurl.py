"""URLs of files: read and written, and nothing else taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsmesh.model.fileurl import (
    file_path,
    file_url,
    inode_of,
    inode_url,
    means_its_reader,
    naming,
    socket_path,
    socket_url,
)
from nsmesh.model.messages import Connection, Mechanism, NetworkServiceRequest

NUMBERS = st.integers(0, 2**64 - 1)


@given(NUMBERS, NUMBERS)
def test_an_inode_url_is_read_as_it_was_written(dev, ino):
    """Device and inode come back, in the decimal form of the contract."""
    assert inode_url(4, 4026531833) == "inode://4/4026531833"
    assert inode_of(inode_url(dev, ino)) == (dev, ino)


@pytest.mark.parametrize("url", ["inode://", "inode://1", "inode://1/", "inode://x/1", "inode://1/2/3"])
def test_a_malformed_inode_url_is_said_so(url):
    """What is of the scheme and not of the form is an error, not another scheme."""
    with pytest.raises(ValueError, match="not of the form"):
        inode_of(url)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    """No text makes anything but a pair, None or ValueError."""
    try:
        found = inode_of("inode://" + text)
    except ValueError:
        return
    assert found is not None


def test_other_schemes_are_none_of_it():
    """Each reader takes its own scheme."""
    assert inode_of("file:///1/2") is None
    assert file_path("inode://1/2") is None
    assert file_path("file://host/path") is None
    assert socket_path("tcp://1.2.3.4:5") is None


def test_paths_come_out_of_urls():
    """Escapes are resolved in file URLs; a socket's path is taken as it is, and an abstract one has none."""
    assert file_path("file:///run/netns/a%20b") == "/run/netns/a b"
    assert file_path(file_url("/proc/1/fd/2")) == "/proc/1/fd/2"
    assert socket_path("unix:///a%20b") == "/a%20b"
    assert socket_path("unix:/a") == "/a"
    assert socket_path(socket_url("/a")) == "/a"
    assert socket_path("unix:@a") is None
    assert socket_path("unix://@a") is None


def test_paths_that_mean_their_reader():
    """Only /proc/self and /proc/thread-self lead each reader to its own, however they are spelled."""
    for path in ("/proc/self/ns/net", "/proc/thread-self/fd/3", "//proc/./self/ns/net"):
        assert means_its_reader(path.replace("//", "/"))
    for path in ("/proc/1/ns/net", "/run/netns/self", "/proc/selfish/x"):
        assert not means_its_reader(path)


def test_what_names_a_file_in_a_request():
    """Preferences first, the agreed mechanism last, and only those with an inodeURL."""
    request = NetworkServiceRequest(
        connection=Connection(mechanism=Mechanism(type="c", parameters={"inodeURL": "file:///c"})),
        mechanism_preferences=[
            Mechanism(type="a", parameters={"inodeURL": "file:///a"}),
            Mechanism(type="b"),
        ],
    )
    assert [mechanism.type for mechanism in naming(request)] == ["a", "c"]
