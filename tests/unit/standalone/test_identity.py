"""The identities of a mesh on one host, without the mesh."""

import pytest

from nsmesh.core.errors import Invalid, NotFound, Refused
from nsmesh.standalone.identity import PASSPHRASE_FILE, passphrase


def test_a_passphrase_comes_from_the_first_line_of_a_private_file(tmp_path):
    """Nothing asked for is no passphrase; a file that is missing, open to others or empty ends the start."""
    path = tmp_path / "passphrase"
    asked = {PASSPHRASE_FILE: str(path)}
    assert passphrase({}) is None
    assert passphrase({PASSPHRASE_FILE: " "}) is None
    with pytest.raises(NotFound, match=PASSPHRASE_FILE):
        passphrase(asked)
    path.write_text("secret words \nmore\n")
    path.chmod(0o644)
    with pytest.raises(Refused, match="0644"):
        passphrase(asked)
    path.chmod(0o600)
    assert passphrase(asked) == b"secret words"
    path.write_text("\nsecret")
    with pytest.raises(Invalid, match="empty"):
        passphrase(asked)
