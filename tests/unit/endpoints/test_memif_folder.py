"""An endpoint's folder of memif sockets: gone at its end, with what an earlier process left in it."""

import asyncio
import platform
import socket

import pytest

from nsmesh.endpoints.memif_answers import AnswerMemif

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="memif in Python is for x86-64")


async def _come_and_go(folder, path):
    async with AnswerMemif(folder).running():
        assert path.exists()


@pytest.mark.parametrize("alive", [True, False])
def test_a_socket_that_nobody_listens_at_is_taken_away(tmp_path, alive):
    """One of a process that was killed goes, and the folder with it; that of a living one stays."""
    folder = tmp_path / "sockets"
    folder.mkdir(mode=0o700)
    path = folder / "wire.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(str(path))
        other.listen()
        if not alive:
            other.close()
        asyncio.run(_come_and_go(folder, path))
        assert (path.exists(), folder.exists()) == (alive, alive)
