"""A memif client: asks who has an address, by ARP, over the socket of a wire, until it is told."""

import asyncio
import sys
from ipaddress import ip_address

from nsmesh.datapath.memif.peer import connect

MAC = bytes.fromhex("020000000001")
REQUEST = bytes.fromhex("0001080006040001")


async def main(socket: str, own: str, target: str) -> None:
    """Print the MAC of ``target``."""
    told: asyncio.Queue[bytes] = asyncio.Queue()
    peer = connect(socket, told.put_nowait)
    await asyncio.wait_for(peer.connected.wait(), 10)
    asked = REQUEST + MAC + ip_address(own).packed + bytes(6) + ip_address(target).packed
    async with asyncio.timeout(10):
        while True:
            peer.send([b"\xff" * 6 + MAC + b"\x08\x06" + asked])
            try:
                frame = await asyncio.wait_for(told.get(), 0.5)
            except TimeoutError:
                continue
            if frame[12:14] == b"\x08\x06":
                print(f"{target} is at {frame[22:28].hex(':')}")
                break
    peer.close()


asyncio.run(main(*sys.argv[1:]))
