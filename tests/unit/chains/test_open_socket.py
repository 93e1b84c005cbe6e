"""Who reaches a role's unix sockets."""

from __future__ import annotations

import asyncio
import stat

import pytest

from nsmesh.chains.runtime import runtime, served
from nsmesh.core.element import Tail
from nsmesh.core.errors import Invalid


def test_sockets_are_not_opened_to_others_without_an_identity(tmp_path):
    """They are ours alone; all users of the host may call only where each has to show a certificate."""
    socket = tmp_path / "s.sock"

    async def main():
        async with runtime(lifetime=60.0, dial_timeout=1.0) as held:
            async with served(held, (f"unix://{socket}",), Tail()):
                assert stat.S_IMODE(socket.stat().st_mode) == 0o600
            with pytest.raises(Invalid, match="NSM_OPEN_SOCKET"):
                async with served(held, (f"unix://{socket}",), Tail(), everybody=True):
                    pass

    asyncio.run(main())
