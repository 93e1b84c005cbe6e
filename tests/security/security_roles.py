"""The roles of a mesh in one process, each on sockets of its own with mTLS: what the attacks are aimed at.

Run as a program: ``security_roles.py FOLDER``. The folder has the CA; sockets and the log go there. It says
``ready`` when all are registered, and ends with its standard input.
"""

import asyncio
import contextlib
import sys
from pathlib import Path

from nsmesh import rpc
from nsmesh.chains.endpoint import endpoint, registration
from nsmesh.chains.registry import running_registry
from nsmesh.chains.roles import registered, running_forwarder, running_nsmgr
from nsmesh.chains.runtime import Runtime, served
from nsmesh.chains.secured import Secured
from nsmesh.chains.settings import ForwarderSettings, NsmgrSettings, RegistrySettings
from nsmesh.core import logging
from nsmesh.datapath.fake import FakeDatapath
from nsmesh.elements.peer import LocalPeers, RemotePeers
from nsmesh.mechanisms.noop import Noop
from nsmesh.model.messages import NetworkService, NetworkServiceEndpoint
from nsmesh.security.ca import CertificateAuthority
from nsmesh.security.svid import SvidSource

DOMAIN = "attacked.nsm"


class Roles:
    """Makes roles, each with an identity and connections of its own."""

    def __init__(self, folder, stack):
        self.folder = folder
        self.stack = stack
        self.ca = CertificateAuthority.open(folder / "ca", DOMAIN)

    def url(self, name):
        return f"unix://{self.folder}/{name}.sock"

    def runtime(self, name):
        source = SvidSource(self.ca.issue(f"spiffe://{DOMAIN}/{name}"), [self.ca.bundle()])
        secured = Secured(source)
        pool = rpc.Pool(identity=source)
        self.stack.push_async_callback(pool.aclose)
        return Runtime(LocalPeers({}, RemotePeers(pool), share=False), secured.tokens, secured)

    async def enter(self, context):
        return await self.stack.enter_async_context(context)

    async def registry(self):
        held = self.runtime("registry")
        settings = RegistrySettings(listen_on=(self.url("registry"),))
        front = held.registry_front(settings.registry_server_policies)
        await self.enter(running_registry(settings, held, sqlite=False, front=front))

    async def nsmgr(self):
        settings = NsmgrSettings(
            name="nsmgr",
            listen_on=(self.url("nsmgr"), "tcp://127.0.0.1:0"),
            registry_url=self.url("registry"),
            excluded_prefixes_file="",
        )
        await self.enter(running_nsmgr(settings, self.runtime("nsmgr")))

    async def forwarder(self):
        settings = ForwarderSettings(connect_to=self.url("nsmgr"), listen_on=self.url("forwarder"))
        await self.enter(running_forwarder(settings, self.runtime("forwarder"), FakeDatapath(), [Noop()]))

    async def nse(self):
        held = self.runtime("nse")
        chain = endpoint("nse", mechanisms=[Noop()], tokens=held.tokens, policies=held.policies())
        await self.enter(chain.running())
        urls = await self.enter(served(held, (self.url("nse"),), chain))
        register = registration(
            "nse",
            manager=self.url("nsmgr"),
            peers=held.peers,
            tokens=held.tokens,
            checks=held.registry_checks(),
        )
        await self.enter(register.running())
        done = asyncio.Event()
        entries = [
            NetworkService(name="service", payload="IP"),
            NetworkServiceEndpoint(name="nse", network_service_names=["service"], url=urls[0]),
        ]
        await self.enter(registered(register, entries, done=done.set))
        await done.wait()


async def main(folder):
    async with contextlib.AsyncExitStack() as stack:
        roles = Roles(folder, stack)
        for start in (roles.registry, roles.nsmgr, roles.forwarder, roles.nse):
            await start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with (Path(sys.argv[1]) / "roles.log").open("w", buffering=1) as out:
        logging.configure(role="roles", stream=out)
        asyncio.run(main(Path(sys.argv[1])))
