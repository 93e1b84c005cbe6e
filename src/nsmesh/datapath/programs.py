"""Runs the small programs of the system (``nft``, ``ip``, ``wg``) to their end, in our own namespace."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from nsmesh.core.errors import MeshError, NotFound, TimedOut, Unauthorized

PATIENCE = 10.0
"""Seconds that a program may take."""

PACKAGES = {"nft": "nftables", "ip": "iproute2", "tc": "iproute2", "wg": "wireguard-tools"}
"""Distribution packages that bring a program along."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: exit code, and what it wrote."""

    code: int
    out: str
    errors: str


async def run(*argv: str, given: str = "", patience: float = PATIENCE) -> Finished:
    """Run a program with ``given`` on its standard input and return how it ended.

    Raises NotFound (no such program), Unauthorized, or TimedOut after ``patience`` seconds.
    """
    name = argv[0]
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, stderr=pipe)
    except FileNotFoundError:
        remedy = f"install the package {PACKAGES.get(name, name)}"
        raise NotFound(f"the program {name} is not on this machine", remedy=remedy) from None
    except PermissionError as error:
        raise Unauthorized(f"the program {name} cannot be started: {error.strerror}") from None
    try:
        async with asyncio.timeout(patience):
            out, errors = await process.communicate(given.encode())
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            raise TimedOut(f"{' '.join(argv)} did not end within {patience:g} s") from None
        raise
    return Finished(process.returncode or 0, out.decode(errors="replace"), errors.decode(errors="replace"))


async def demand(error: type[MeshError], *argv: str, given: str = "", patience: float = PATIENCE) -> str:
    """Run a program and return what it wrote; where it fails, raise ``error`` with its first line."""
    done = await run(*argv, given=given, patience=patience)
    if done.code:
        said = next((line for line in done.errors.splitlines() if line.strip()), "")
        raise error(
            f"{' '.join(argv)} failed with exit code {done.code}: {said.strip() or 'no reason given'}"
        )
    return done.out
