"""The check that belongs to every session that runs whole meshes."""

import json
import os
import signal
import subprocess
import uuid

import mesh_lab
import pytest


def _host_links():
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return {link["ifname"] for link in links}


@pytest.fixture(scope="session", autouse=True)
def no_leaks():
    """After all tests no process of theirs lives, and the host has the interfaces that it had."""
    if mesh_lab.MARK in os.environ:
        yield  # the same session, from another folder
        return
    os.environ[mesh_lab.MARK] = uuid.uuid4().hex
    for name in [name for name in os.environ if name.startswith("NSM_")]:
        del os.environ[name]
    before = _host_links()
    yield
    try:
        mesh_lab.until(lambda: not mesh_lab.processes(), 5, lambda: f"left: {mesh_lab.processes()}")
        mesh_lab.until(lambda: not _host_links() - before, 5, lambda: f"left: {_host_links() - before}")
    finally:
        for pid, _ in mesh_lab.processes():
            os.kill(pid, signal.SIGKILL)
        del os.environ[mesh_lab.MARK]
