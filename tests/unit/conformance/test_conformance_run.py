"""The suite against our own roles, and what it does where something is wrong."""

import asyncio
import json

import pytest
import structlog
from click.testing import CliRunner

from nsmesh.cli.main import cli
from nsmesh.conformance import running
from nsmesh.conformance.case import Case, Deviation, Skipped, expect
from nsmesh.conformance.world import Addresses, world_of
from nsmesh.core.errors import NotFound, Unavailable


@pytest.fixture(autouse=True)
def own_logs():
    """Undo what a command sets up: logging to a stream that ends with it."""
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


async def results_of(*names):
    async with world_of(Addresses()) as world:
        return [result async for result in running.run(world, running.chosen(names))]


def test_our_own_roles_pass_every_case():
    """A scratch mesh of our own manager, registry, forwarder and endpoint keeps the contract."""
    results = asyncio.run(results_of())
    assert {result.case.name for result in results} == {case.name for case in running.CASES}
    assert [(one.case.name, one.seen) for one in results if one.verdict != "pass"] == []


def test_a_case_is_chosen_by_name_or_group():
    """Names and groups choose; one that is neither is told."""
    assert [case.name for case in running.chosen(["find/name"])] == ["find/name"]
    assert {case.name.partition("/")[0] for case in running.chosen(["health", "find/name"])} == {
        "health",
        "find",
    }
    with pytest.raises(NotFound, match="no case findd"):
        running.chosen(["findd"])


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [(Deviation("else"), "fail"), (Skipped("why"), "skip"), (Unavailable("gone"), "fail"), (None, "pass")],
)
def test_a_verdict(raised, verdict):
    """A deviation and an error fail, what cannot be run is skipped, what was expected passes."""

    async def check(world):
        if raised:
            raise raised
        return expect(1, "seen")

    async def main():
        async with world_of(Addresses()) as world:
            (result,) = [one async for one in running.run(world, [Case("a/b", "1", "x", check)])]
            return result

    result = asyncio.run(main())
    assert result.verdict == verdict
    assert (str(raised) if raised else "seen") in result.seen


def test_the_command_prints_rows_and_a_code():
    """``-o json`` gives a row per case; a peer elsewhere needs an identity for the tester."""
    ran = CliRunner().invoke(cli, ["conformance", "run", "health/nsmgr", "-o", "json"])
    assert ran.exit_code == 0
    (row,) = json.loads(ran.stdout)
    assert row["case"] == "health/nsmgr"
    assert row["result"] == "pass"
    failed = CliRunner(env={"SPIFFE_ENDPOINT_SOCKET": ""}).invoke(
        cli, ["conformance", "run", "--nsmgr", "unix:///none"]
    )
    assert "no identity" in str(failed.exception)
    listed = CliRunner().invoke(cli, ["conformance", "list", "-o", "json"])
    assert len(json.loads(listed.stdout)) == len(running.CASES)


def test_a_failed_case_gives_code_1(monkeypatch):
    """One case that fails makes the command fail, and says what was expected."""

    async def check(world):
        raise Deviation("a surprise")

    monkeypatch.setattr(running, "CASES", (Case("x/y", "1.2", "the usual", check),))
    ran = CliRunner().invoke(cli, ["conformance", "run"])
    assert ran.exit_code == 1
    assert "fail  x/y" in ran.output
    assert "expected (1.2): the usual" in ran.output
