"""Addresses: what URLs mean."""

import pytest

from nsmesh.core.errors import Invalid
from nsmesh.rpc import address


@pytest.mark.parametrize(
    ("url", "path", "host", "port"),
    [
        ("unix:///run/a.sock", "/run/a.sock", "", 0),
        ("unix:/run/a.sock", "/run/a.sock", "", 0),
        ("unix:a.sock", "a.sock", "", 0),
        ("unix://@name", "\0name", "", 0),
        ("unix:@name", "\0name", "", 0),
        ("unix:///proc/12/fd/7", "/proc/12/fd/7", "", 0),
        ("tcp://127.0.0.1:5000", "", "127.0.0.1", 5000),
        ("tcp://:5001", "", "", 5001),
        ("registry:5002", "", "registry", 5002),
        ("[::1]:80", "", "::1", 80),
        ("tcp://[::1]:80", "", "::1", 80),
    ],
)
def test_urls_are_understood(url, path, host, port):
    """Every form of URL gives its address."""
    assert address.parse(url) == address.Address(url, path, host, port)


@pytest.mark.parametrize(
    "url", ["", "unix:", "unix://", "unix://@", "host", "host:x", "::1:80", "http://a:1", "a:70000"]
)
def test_other_urls_are_invalid(url):
    """What is no address is refused with the form that would be one."""
    with pytest.raises(Invalid, match="write"):
        address.parse(url)
