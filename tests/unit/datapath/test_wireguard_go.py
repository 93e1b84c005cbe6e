"""How wireguard-go is started: hidden where that can be, and plainly where it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from nsmesh.datapath import wireguard_go


@pytest.mark.parametrize(("ends_with", "hides"), [(None, False), (1, False), (0, True)])
def test_it_hides_where_a_mount_namespace_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_with: int | None, hides: bool
) -> None:
    """An image without unshare is one where it cannot, and so is a machine that does not allow it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if ends_with is not None:
        program = tmp_path / "unshare"
        program.write_text(f"#!/bin/sh\nexit {ends_with}\n")
        program.chmod(0o755)
    assert asyncio.run(wireguard_go.can_hide()) is hides


def test_the_command_and_the_socket_go_together() -> None:
    """Plainly, it is the program itself, and its socket is at the usual place."""
    assert wireguard_go.command("wg0", hidden=False) == ("wireguard-go", "-f", "wg0")
    assert wireguard_go.socket_of("wg0", 1, hidden=False) == Path("/var/run/wireguard/wg0.sock")
    assert wireguard_go.command("wg0", hidden=True)[0] == "unshare"
