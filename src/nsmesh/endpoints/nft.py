"""nftables of our own network namespace, through the program ``nft``: whole transactions in, listings out."""

from __future__ import annotations

import json
from typing import Any

from nsmesh.core.errors import Refused
from nsmesh.datapath import programs


async def apply(text: str) -> None:
    """Apply a program of nft commands, all or nothing. Raises Refused with what the kernel or nft said."""
    done = await programs.run("nft", "-f", "-", given=text)
    if done.code:
        raise Refused(
            f"nft refused a change: {_reason(done.errors)}",
            remedy="the process needs CAP_NET_ADMIN in its namespace and a kernel with nf_tables",
        )


async def listing(family: str, table: str) -> str | None:
    """Return the JSON listing of a table, or None if there is no such table."""
    done = await programs.run("nft", "-j", "list", "table", family, table)
    if done.code:
        if "No such file or directory" in done.errors:
            return None
        raise Refused(f"nft cannot list table {family} {table}: {_reason(done.errors)}")
    return done.out


async def tables(family: str) -> list[str]:
    """Return the names of the tables of one family."""
    text = await programs.demand(Refused, "nft", "-j", "list", "tables", family)
    items: list[dict[str, Any]] = json.loads(text)["nftables"]
    return [item["table"]["name"] for item in items if "table" in item]


def _reason(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), lines[0] if lines else "no reason given")
