"""The identities of a mesh on one host, without the mesh."""

import os
import subprocess

import pytest

from nsmesh.core.call import Peer
from nsmesh.core.errors import Invalid, NotFound, Refused
from nsmesh.core.process import start_ticks
from nsmesh.security.entries import DEFAULT_TEMPLATE, Entries, Template, attest
from nsmesh.standalone.identity import PASSPHRASE_FILE, Identities, passphrase
from nsmesh.standalone.processes import Started


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


def matching(entries, pid):
    (entry, *_) = entries.matching(attest(Peer(uid=os.getuid(), gid=os.getgid(), pid=pid)))
    return entry.spiffe_id


def test_roles_of_one_user_are_told_apart():
    """Each process that was announced has its ID until it is taken back; others have that of their user."""
    entries = Entries(template=Template(DEFAULT_TEMPLATE, "my.nsmesh"))
    identities = Identities("my.nsmesh", entries)
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as two:
        try:
            mine = f"spiffe://my.nsmesh/uid/{os.getuid()}"
            gone = identities.add_process("nsmgr", Started(one.pid, start_ticks(one.pid)))
            identities.add_process("forwarder", Started(two.pid, start_ticks(two.pid)))
            # it lives where the namespace has an ID as well: the process is the more specific
            identities.add("node", f"/proc/{one.pid}/ns/net")
            assert matching(entries, one.pid) == "spiffe://my.nsmesh/nsm/nsmgr"
            assert matching(entries, two.pid) == "spiffe://my.nsmesh/nsm/forwarder"
            identities.drop("node")
            assert matching(entries, os.getpid()) == mine
            gone()
            assert matching(entries, one.pid) == mine
        finally:
            one.kill()
            two.kill()


def test_a_later_process_of_the_same_pid_is_nobody():
    """A process that began at another time than the one that was announced has not its ID."""
    entries = Entries(template=Template(DEFAULT_TEMPLATE, "my.nsmesh"))
    earlier = Started(os.getpid(), start_ticks(os.getpid()) - 1)
    Identities("my.nsmesh", entries).add_process("nsmgr", earlier)
    assert matching(entries, os.getpid()) == f"spiffe://my.nsmesh/uid/{os.getuid()}"
