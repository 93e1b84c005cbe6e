"""For tests of the linux driver: namespaces of our own, and what ``ip`` sees in them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from nsmesh.datapath import netns
from nsmesh.datapath.base import CrossConnect, KernelPort, Route

T = TypeVar("T")


@contextmanager
def spaces(count: int = 2) -> Iterator[list[str]]:
    """Yield the paths of fresh namespaces."""
    prefix = f"dp{os.getpid()}{uuid.uuid4().hex[:6]}"
    with netns.temporary(*(f"{prefix}-{number}" for number in range(count))) as paths:
        yield paths


def ip(path: str, *argv: str) -> Any:
    """Run ``ip -json`` in a namespace and return what it says."""
    return json.loads(run(path, "ip", "-json", "-details", *argv) or "[]")


def run(path: str, *argv: str, check: bool = True) -> str:
    """Run a program in a namespace and return its output."""
    return subprocess.run(
        ["ip", "netns", "exec", Path(path).name, *argv], check=check, capture_output=True, text=True
    ).stdout


def names(path: str) -> set[str]:
    """Return the interfaces of a namespace, without its loopback."""
    return {link["ifname"] for link in ip(path, "link", "show")} - {"lo"}


def carriers(path: str) -> set[str]:
    """Return those interfaces of a namespace that are up and have a carrier."""
    found = ip(path, "link", "show")
    return {link["ifname"] for link in found if "LOWER_UP" in link["flags"]} - {"lo"}


def link(path: str, name: str) -> dict[str, Any]:
    (found,) = ip(path, "link", "show", "dev", name)
    return found


def addresses(path: str, name: str) -> list[str]:
    (found,) = ip(path, "addr", "show", "dev", name)
    return [f"{item['local']}/{item['prefixlen']}" for item in found["addr_info"]]


def routes(path: str, name: str, *argv: str) -> set[tuple[str, str]]:
    """Prefix and gateway of the routes that somebody set (not the kernel) through an interface."""
    found = ip(path, *argv, "route", "show", "dev", name)
    return {
        (item["dst"], item.get("gateway", "")) for item in found if item.get("protocol", "boot") == "boot"
    }


def rules(path: str, *argv: str) -> list[dict[str, Any]]:
    return [rule for rule in ip(path, *argv, "rule", "show") if rule["priority"] not in {0, 32766, 32767}]


def pings(path: str, address: str) -> bool:
    argv = ["ip", "netns", "exec", Path(path).name, "ping", "-c1", "-W1", address]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


async def pings_soon(path: str, address: str) -> bool:
    """Whether a ping passes within some seconds; the loop goes on meanwhile."""
    end = time.monotonic() + 10
    while not (passed := await asyncio.to_thread(pings, path, address)) and time.monotonic() < end:
        pass
    return passed


async def gone_soon(path: str, name: str) -> bool:
    """Whether an interface is gone within some seconds."""
    end = time.monotonic() + 10
    while name in names(path) and time.monotonic() < end:  # noqa: ASYNC110 - what the kernel does
        await asyncio.sleep(0.01)
    return name not in names(path)


def sysctl(path: str, key: str) -> str:
    return netns.call_in(path, lambda: (Path("/proc/sys") / key).read_text().strip())


def set_sysctl(path: str, key: str, value: str) -> None:
    netns.call_in(path, lambda: (Path("/proc/sys") / key).write_text(value))


def in_thread(path: str, work: Callable[[], T]) -> T:
    """Run ``work`` in a thread that lives in a namespace, as a process of it would."""

    def inside() -> T:
        namespace = netns.open_netns(path)
        netns.enter(namespace)
        os.close(namespace)
        return work()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(inside).result()


def simple(a: str, b: str, wire_id: str = "w1", number: int = 1, **port: Any) -> CrossConnect:
    """Return a dual-stack wire with a host address at each end."""
    net = f"10.{number // 256}.{number % 256}"
    return CrossConnect(
        wire_id,
        KernelPort(
            a,
            f"nsm-{number}",
            addresses=(f"{net}.1/32", f"fd00:{number}::1/128"),
            routes=(Route(f"{net}.2/32"), Route(f"fd00:{number}::2/128")),
            **port,
        ),
        KernelPort(
            b,
            f"nse-{number}",
            addresses=(f"{net}.2/32", f"fd00:{number}::2/128"),
            routes=(Route(f"{net}.1/32"), Route(f"fd00:{number}::1/128")),
        ),
    )


@contextmanager
def process_in(path: str) -> Iterator[int]:
    """Run a process that lives in a namespace; yield its pid."""
    with subprocess.Popen(
        ["nsenter", f"--net={path}", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE
    ) as process:
        try:
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()
