"""Every metric of the reference counts what it says: here, or in the test that is named for it."""

import asyncio
import re
import time
from pathlib import Path

import pytest
from small_mesh import LIFE, SmallMesh

from nsmesh import rpc
from nsmesh.core import virtual
from nsmesh.core.call import Call, Peer
from nsmesh.core.element import chain
from nsmesh.core.errors import Exhausted, MeshError, Unauthorized
from nsmesh.core.metrics import DECLARED
from nsmesh.elements.quota import Quota
from nsmesh.model.messages import Connection, NetworkServiceRequest
from nsmesh.security import policy, rules
from nsmesh.security.rules import Question
from nsmesh.security.token import TokenReader

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "reference" / "metrics.md").read_text()
WHOLE = "standalone/test_observing.py"
WEBHOOK = "kubernetes/test_admission_webhook_rotation.py"
ELSEWHERE = {
    "nsm_role_requests": WHOLE,
    "nsm_role_seconds": WHOLE,
    "nsm_element_seconds": WHOLE,
    "nsm_registry_entries": WHOLE,
    "nsm_firewall_packets": WHOLE,
    "nsm_firewall_bytes": WHOLE,
    "nsm_supervisor_deaths": WHOLE,
    "nsm_supervisor_restarts": WHOLE,
    "nsm_journal_writes": "unit/journal/test_journal_file.py",
    "nsm_strays_closed": "unit/elements/test_strays.py",
    "nsm_sweep_wires": "unit/elements/test_sweep.py",
    "nsm_wires_restored": "unit/elements/test_keep_wire.py",
    "nsm_nodes_lost": "unit/elements/test_watch_nodes.py",
    "nsm_dial_unclosed": "unit/elements/test_dial_unclosed.py",
    "nsm_webhook_reviews": WEBHOOK,
    "nsm_webhook_seconds": WEBHOOK,
    "nsm_webhook_certificate_end_seconds": WEBHOOK,
    "nsm_webhook_closed": "unit/kubernetes/test_kubernetes_https.py",
    "nsm_vpn_gateway_bytes": "netns/test_vpn_netns.py",
    "nsm_vpn_gateway_handshake_seconds": "netns/test_vpn_netns.py",
}
HERE = ("begin", "authorize", "quota", "refresh", "timeout", "heal", "rpc")
"""Elements whose metrics are counted below."""


async def value(name, *labels):
    """Return what a metric says of these values of its first labels; without any, of all together."""
    samples = await DECLARED[name].samples()
    return sum(one.value for one in samples if tuple(one.labels.values())[: len(labels)] == labels)


def test_each_metric_of_the_page_is_counted_by_a_test():
    """What is documented is declared under that name, and a test sees it count."""
    listed = {name.removesuffix("_total") for name in re.findall(r"^\| `(nsm_\w+)`", PAGE, re.MULTILINE)}
    for name in listed:
        assert name in DECLARED or name in ELSEWHERE
        if name in ELSEWHERE:
            assert name in (TESTS / ELSEWHERE[name]).read_text()
        else:
            assert name.split("_")[1] in HERE, f"no test counts {name}"


def test_connections_refreshes_heals_and_timeouts_are_counted():
    """One wire: it lives in each chain, is refreshed, loses its endpoint, and its client dies."""

    async def main():
        names = ("nsm_refresh_refreshes", "nsm_heal_attempts", "nsm_timeout_closes")
        before = [await value(name) for name in names]
        async with SmallMesh().running() as mesh:
            await mesh.ask()
            assert await value("nsm_begin_connections", "mgr") == 1
            assert await value("nsm_begin_connections", "nse1") == 1
            assert await value("nsm_begin_orphans") == 0
            await asyncio.sleep(LIFE / 2)
            assert await value(names[0]) > before[0]
            mesh.choose.crossed.add("nse1")
            mesh.cables["nse1"].cut()
            await asyncio.sleep(5)
            assert await value(names[1]) > before[1]
            assert await value("nsm_begin_connections", "nse2") == 1
            mesh.cable.cut()
            await asyncio.sleep(2 * LIFE)
            assert await value(names[2]) > before[2]
            assert await value("nsm_begin_connections", "mgr") == 0

    virtual.run(main())


def test_refusals_are_counted_by_rule():
    """A policy that refuses is counted under its name, a quota under its own."""

    async def main():
        name = "nsm_authorize_refusals"
        before = await value(name, "tokens_valid"), await value(name), await value("nsm_quota_refusals")
        asked = Question([""], 0, b"", "", time.time(), TokenReader())
        with pytest.raises(Unauthorized):
            policy.authorize((rules.tokens_valid,), asked)
        assert (await value(name, "tokens_valid"), await value(name)) == (before[0] + 1, before[1] + 1)
        handler = chain(Quota(1))
        nsc = Call(peer=Peer(spiffe_id="spiffe://td/nsc"))
        async with handler.running():
            await handler.request(nsc, NetworkServiceRequest(connection=Connection(id="c-0")))
            with pytest.raises(Exhausted):
                await handler.request(nsc, NetworkServiceRequest(connection=Connection(id="c-1")))
        assert await value("nsm_quota_refusals") == before[2] + 1

    asyncio.run(main())


def test_dials_handshakes_and_open_connections_are_counted(tmp_path):
    """A dial that comes through is one handshake and one open connection; one that fails has its status."""

    async def main():
        pool = rpc.Pool()
        dials, shakes = await value("nsm_rpc_dials", "OK"), await value("nsm_rpc_handshakes", "ok")
        failed = await value("nsm_rpc_dials", "UNAVAILABLE")
        async with rpc.serve(f"unix://{tmp_path}/s.sock", {}) as server:
            await pool.get(server.url)
            assert await value("nsm_rpc_dials", "OK") == dials + 1
            assert await value("nsm_rpc_handshakes", "ok") == shakes + 1
            assert await value("nsm_rpc_connections", server.url) == 1
            with pytest.raises(MeshError):
                await pool.get(f"unix://{tmp_path}/nobody.sock")
            assert await value("nsm_rpc_dials", "UNAVAILABLE") == failed + 1
            await pool.aclose()

    asyncio.run(main())
