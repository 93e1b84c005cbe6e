"""For tests of network functions: namespaces of our own, veths, and programs and event loops inside them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, Self

from nsmesh.core.scope import Scope
from nsmesh.datapath import netns


class Lab(contextlib.ExitStack):
    """Named namespaces that live as long as the ``with`` block, and what runs in them."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"ep{os.getpid()}{uuid.uuid4().hex[:6]}"

    def namespace(self, label: str) -> str:
        name = f"{self.prefix}-{label}"
        netns.create(name)
        self.callback(netns.delete, name)
        return name

    def veth(self, a: str, a_name: str, b: str, b_name: str) -> None:
        ip("link", "add", a_name, "netns", a, "type", "veth", "peer", "name", b_name, "netns", b)
        ip("-n", a, "link", "set", a_name, "up")
        ip("-n", b, "link", "set", b_name, "up")

    def start(self, space: str, *argv: str, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(["ip", "netns", "exec", space, *argv], **options)
        self.callback(_end, process)
        return process

    def serve(self, space: str, *ports: int, family: str = "0.0.0.0") -> None:
        """Answer every HTTP request on these ports with the port's number; returns once all listen."""
        source = (
            "import asyncio, sys\n"
            "async def main():\n"
            "    async def answer(reader, writer):\n"
            "        await reader.readuntil(b'\\r\\n\\r\\n')\n"
            "        port = str(writer.get_extra_info('sockname')[1]).encode()\n"
            "        writer.write(b'HTTP/1.0 200 OK\\r\\n\\r\\nport ' + port + b'\\n')\n"
            "        await writer.drain(); writer.close()\n"
            f"    servers = [await asyncio.start_server(answer, {family!r}, p) for p in {ports!r}]\n"
            "    print('ready', flush=True)\n"
            "    await asyncio.Event().wait()\n"
            "asyncio.run(main())\n"
        )
        process = self.start(space, "python3", "-c", source, stdout=subprocess.PIPE)
        assert process.stdout is not None
        self.callback(process.stdout.close)
        assert process.stdout.readline() == b"ready\n"

    def resident(self, space: str) -> Resident:
        return self.enter_context(Resident(f"/run/netns/{space}"))


class Resident:
    """A thread that lives in a namespace and runs an event loop with a scope there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.scope = Scope("lab")
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            self._failure = error
            self._ready.set()

    async def _main(self) -> None:
        namespace = netns.open_netns(self.path)
        netns.enter(namespace)
        os.close(namespace)
        self.loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        async with self.scope:
            self._ready.set()
            await self.stop.wait()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def hold(self, context: Any, lab: Lab) -> Any:
        """Enter an async context in the loop, and leave it there when the lab ends."""
        stack = contextlib.AsyncExitStack()
        entered = self.call(stack.enter_async_context(context))
        lab.callback(lambda: self.call(stack.aclose()))
        return entered


def ip(*argv: str) -> str:
    return subprocess.run(["ip", *argv], check=True, capture_output=True, text=True).stdout


def run(space: str, *argv: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ip", "netns", "exec", space, *argv], capture_output=True, text=True, timeout=timeout, check=False
    )


def ping(space: str, address: str, *options: str) -> bool:
    done = run(space, "ping", "-c", "1", "-W", "0.5", *options, address)
    return done.returncode == 0


def http(space: str, url: str) -> tuple[int, str, float]:
    """Return curl's exit code (7: refused, 28: timed out), the page and the seconds that it took."""
    done = run(space, "curl", "-s", "-m", "1", "-w", "\n%{time_total}", url)
    page, _, seconds = done.stdout.rpartition("\n")
    return done.returncode, page.strip(), float(seconds)


def until(condition: Callable[[], bool], seconds: float = 5) -> None:
    """Wait for the kernel or another process; fails after ``seconds``."""
    import time

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
