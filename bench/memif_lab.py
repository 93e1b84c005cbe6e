"""For ``memif_wires.py``: packet processors of DPDK under measurement, and whole meshes in this process."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from driver import LIFETIME, PREFIX, SERVICE
from processes import cpu_of

from nsmesh.chains.client import client
from nsmesh.chains.endpoint import endpoint, registration
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import registered, running_forwarder, running_nsmgr
from nsmesh.chains.runtime import Runtime, runtime, served
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import Chain, Element
from nsmesh.core.mechanism import MechanismPlugin
from nsmesh.datapath.base import Datapath
from nsmesh.elements.ipam import Ipam
from nsmesh.elements.receive_fd import ReceiveFdClient
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import (
    LOCAL,
    Connection,
    Mechanism,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceRequest,
)

OURS = Call(peer=Peer(in_process=True))
PATIENCE = 30.0
"""Seconds within which packets must pass."""
_PAUSE = 0.05


class Testpmd:
    """A ``dpdk-testpmd`` on the processor ``core``: one device each, ``mode`` says what it does with packets.

    Memory of its own, no huge pages, no devices of the machine. A context manager.
    """

    def __init__(self, name: str, folder: Path, core: int, mode: str, *devices: str) -> None:
        self._log = folder / f"{name}.log"
        topology = "paired" if len(devices) > 1 else "loop"
        self._ports = len(devices)
        # it would keep what it says until it is a page
        command = ["stdbuf", "-oL", "dpdk-testpmd", "--no-pci", "--no-huge", "--legacy-mem", "-m", "96"]
        command += ["--lcores", f"0@{core},1@{core}", f"--file-prefix=bench{folder.name}{name}"]
        for number, device in enumerate(devices):
            kind, _, rest = device.partition(",")
            command += ["--vdev", f"{kind}{number},{rest}"]
        command += ["--", "-i", "--total-num-mbufs=4096", "--nb-cores=1", f"--port-topology={topology}"]
        command += [f"--forward-mode={mode}", "--no-flush-rx", "--auto-start"]
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out)

    def received(self) -> int:
        """Return how many packets its ports have received so far."""
        begin = self._log.stat().st_size
        assert self._process.stdin is not None
        self._process.stdin.write(b"show port stats all\n")
        self._process.stdin.flush()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            said = self._log.read_bytes()[begin:].decode(errors="replace")
            found = re.findall(r"RX-packets: (\d+) ", said)
            if len(found) == self._ports:
                return sum(map(int, found))
            if self._process.poll() is not None:
                break
            time.sleep(0.002)
        raise RuntimeError(f"testpmd does not answer: {self._log.read_text()[-2000:]}")

    def cpu(self) -> float:
        """Return its processor time so far, in seconds."""
        return cpu_of(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def memif(role: str, path: Path | str) -> str:
    """Return testpmd's device of one ring each way at a socket."""
    return f"net_memif,role={role},id=0,socket={path},socket-abstract=no"


def until(path: Path) -> None:
    """Wait for a socket that another process makes."""
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise RuntimeError(f"{path} did not come")
        time.sleep(_PAUSE)


@asynccontextmanager
async def mesh(
    folder: Path,
    datapath: Datapath,
    passed_on: Sequence[MechanismPlugin],
    ended: MechanismPlugin,
    *function: Element,
) -> AsyncIterator[Chain]:
    """Run all roles in this process over their sockets in ``folder``; yield the client's chain.

    ``passed_on``: mechanisms of the forwarder, ``ended``: the endpoint's, whose ``function`` stands behind
    its addresses.
    """
    folder.mkdir()

    def url(role: str) -> str:
        return f"unix://{folder}/{role}.sock"

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context

        async def held() -> Runtime:
            return await enter(runtime(lifetime=LIFETIME, dial_timeout=2.0, share=False))

        registry = RegistrySettings(listen_on=(url("registry"),))
        await enter(running_registry(registry, await held(), sqlite=False))
        manager = NsmgrSettings(
            name="nsmgr",
            listen_on=(url("nsmgr"),),
            registry_url=url("registry"),
            excluded_prefixes_file="",
        )
        await enter(running_nsmgr(manager, await held()))
        forwarder = ForwarderSettings(connect_to=url("nsmgr"), listen_on=url("forwarder"))
        await enter(running_forwarder(forwarder, await held(), datapath, passed_on))
        await _endpoint(stack, await held(), url("nsmgr"), url("nse"), ended, function)
        mine = await held()
        chain = client(
            "client",
            manager=url("nsmgr"),
            peers=mine.peers,
            tokens=mine.tokens,
            function=(ReceiveFdClient(),),
        )
        yield await enter(chain.running())


async def _endpoint(
    stack: AsyncExitStack,
    held: Runtime,
    manager: str,
    url: str,
    ended: MechanismPlugin,
    function: tuple[Element, ...],
) -> None:
    enter = stack.enter_async_context
    chain = endpoint("nse", Ipam(((PREFIX,),)), *function, mechanisms=[ended], tokens=held.tokens)
    await enter(chain.running())
    await enter(served(held, (url,), chain))
    register = registration("nse", manager=manager, peers=held.peers, tokens=held.tokens)
    await enter(register.running())
    entry = NetworkServiceEndpoint(name="nse", network_service_names=[SERVICE], url=url)
    await enter(registered(register, [NetworkService(name=SERVICE, payload="IP"), entry]))


def request_of(number: int, kind: str, parameters: dict[str, str]) -> NetworkServiceRequest:
    """Return a first Request for a wire of a mechanism."""
    return NetworkServiceRequest(
        connection=Connection(id=f"bench-{number}", network_service=SERVICE),
        mechanism_preferences=[Mechanism(cls=LOCAL, type=kind, parameters=parameters)],
    )


async def ask(chain: Chain, request: NetworkServiceRequest) -> Connection:
    """Ask until the mesh is ready."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return await chain.request(OURS.within(15.0), copy_of(request))
        except Exception:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.05)
