import asyncio
import os
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import datapath_lab as lab
import pytest

from nsmesh.core.errors import Conflict, Invalid
from nsmesh.datapath import netns

pytestmark = pytest.mark.root


def test_a_namespace_is_made_with_loopback_and_deleted_again():
    """create, list, use and delete; the loopback answers; a second create is a Conflict."""
    name = f"dp{os.getpid()}{uuid.uuid4().hex[:6]}"
    path = netns.create(name)
    try:
        assert path in netns.named()
        assert lab.pings(path, "127.0.0.1")
        with pytest.raises(Conflict):
            netns.create(name)
    finally:
        netns.delete(name)
    assert path not in netns.named()
    assert not Path(path).exists()
    netns.delete(name)


def test_ip_netns_comes_later():
    """On a fresh machine, namespaces that are there before the first ``ip netns`` can be deleted."""
    script = """
import subprocess
from nsmesh.datapath import netns
path = netns.create("ours")
subprocess.run(["ip", "netns", "add", "theirs"], check=True)
assert netns.call_in(path, lambda: True)
netns.delete("ours")
assert netns.named() == ["/run/netns/theirs"], netns.named()
netns.create("ours")
subprocess.run(["ip", "netns", "delete", "theirs"], check=True)
subprocess.run(["ip", "netns", "delete", "ours"], check=True)
assert netns.named() == []
"""
    fresh = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
    work = 'mount -t tmpfs fresh /run && exec "$0" -c "$1"'
    done = subprocess.run([*fresh, work, sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_function_runs_inside_and_the_thread_comes_back():
    """call_in runs in this thread, inside the namespace; whatever happens there, we are home again."""
    with lab.spaces(1) as (path,):
        home = netns.identity("/proc/thread-self/ns/net")
        seen = netns.call_in(
            path, lambda: (threading.get_ident(), netns.identity("/proc/thread-self/ns/net"))
        )
        assert seen == (threading.get_ident(), netns.identity(path))
        with pytest.raises(ZeroDivisionError):
            netns.call_in(f"file://{path}", lambda: 1 // 0)
        assert netns.identity("/proc/thread-self/ns/net") == home


def test_a_socket_made_inside_stays_inside():
    """A server made inside is reached from inside alone."""
    with (
        lab.spaces(1) as (path,),
        netns.call_in(path, lambda: socket.create_server(("127.0.0.1", 0))) as server,
    ):
        address = server.getsockname()
        netns.call_in(path, lambda: socket.create_connection(address, 2)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, 2)


def test_namespaces_of_processes_are_found():
    """A process's namespace is found by pid and among all of them."""
    with lab.spaces(1) as (path,), lab.process_in(path) as pid:
        assert netns.identity(netns.of_pid(pid)) == netns.identity(path)
        assert netns.identity(path) in {netns.identity(found) for found in netns.of_processes()}


def test_nothing_leaks_and_other_threads_stay_where_they_are():
    """Excursions cost no descriptor and no thread, and never move another thread."""

    async def main(path):
        inside, before = [], len(list(Path("/proc/self/fd").iterdir()))
        home = netns.identity("/proc/thread-self/ns/net")

        def look():
            inside.append(netns.identity("/proc/thread-self/ns/net"))

        for _ in range(50):
            work = asyncio.to_thread(look)
            netns.call_in(path, lambda: None)
            await work
        assert set(inside) == {home}
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    with lab.spaces(1) as (path,):
        asyncio.run(main(path))


def test_a_file_that_is_no_namespace_is_invalid(tmp_path):
    """Entering something else is refused with what to give, and leaves the thread where it was."""
    plain = tmp_path / "plain"
    plain.write_text("")
    with pytest.raises(Invalid):
        netns.call_in(str(plain), lambda: None)
