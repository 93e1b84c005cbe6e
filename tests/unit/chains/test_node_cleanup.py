"""What an uninstalled mesh leaves on a node goes, and nothing else does."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from nsmesh.chains.node_cleanup import clean

SOCKETS, STATE = "/run/spire/sockets", "/var/lib/nsmesh"


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """Give the root of a node with both folders, and something else beside each."""
    (tmp_path / "run/spire/sockets").mkdir(parents=True)
    (tmp_path / "run/other").mkdir()
    (tmp_path / "var/lib/nsmesh/nsmgr").mkdir(parents=True)
    (tmp_path / "var/lib/nsmesh/nsmgr/journal.db").write_text("kept")
    (tmp_path / "var/lib/other").mkdir()
    return tmp_path


def listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen()
    return made


def cleaned(host: Path, patience: float = 0.0) -> list[str]:
    return asyncio.run(clean(host, [SOCKETS], [STATE], patience))


def test_nothing_is_left(host: Path) -> None:
    """A dead socket, both folders and an empty parent go; neighbours stay, and a second time is none."""
    listening(host / "run/spire/sockets/agent.sock").close()
    for _ in range(2):
        assert cleaned(host) == []
        assert sorted(str(path.relative_to(host)) for path in host.rglob("*")) == [
            "run", "run/other", "var", "var/lib", "var/lib/other",
        ]  # fmt: skip


def test_a_socket_that_is_served_stays(host: Path) -> None:
    """Who listens there is told, and the folder stays; the state goes all the same."""
    with listening(host / "run/spire/sockets/agent.sock"):
        assert cleaned(host) == ["/run/spire/sockets/agent.sock is served"]
        assert (host / "run/spire/sockets/agent.sock").is_socket()
        assert not (host / "var/lib/nsmesh").exists()


def test_who_still_ends_is_waited_for(host: Path) -> None:
    """A role that stops serving within the patience leaves nothing behind."""
    served = listening(host / "run/spire/sockets/agent.sock")

    async def main() -> list[str]:
        asyncio.get_running_loop().call_later(0.5, served.close)
        return await clean(host, [SOCKETS], [], 20.0)

    assert asyncio.run(main()) == []
    assert not (host / "run/spire").exists()


def test_what_is_not_ours_stays(host: Path) -> None:
    """A file in the folder of sockets stays with the folder, and is told of."""
    (host / "run/spire/sockets/note").write_text("not ours")
    (kept,) = cleaned(host)
    assert kept.startswith("/run/spire/sockets: ")
    assert (host / "run/spire/sockets/note").read_text() == "not ours"


@pytest.mark.parametrize("folder", ["/", "", "var/lib/nsmesh", "/var/lib/../lib/nsmesh", "/link"])
def test_no_other_folder_goes(host: Path, folder: str) -> None:
    """The root, a relative name, a way up, and a link are refused by name: nothing is removed."""
    (host / "link").symlink_to(host / "var")
    before = sorted(host.rglob("*"))
    (kept,) = asyncio.run(clean(host, [], [folder], 0.0))
    assert "no folder of its own" in kept
    assert sorted(host.rglob("*")) == before
