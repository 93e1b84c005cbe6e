"""The CA of a cluster whose clock is set: what it signs with is valid, and known to its agents."""

from __future__ import annotations

import asyncio

import pytest

from nsmesh.attestation.keeping import Rotation
from nsmesh.core import virtual
from nsmesh.core.errors import Unavailable
from nsmesh.security.ca import LIFETIME, CertificateAuthority


class Kept:
    """In place of secret and config map: what each step has left there; fails as often as it is told to."""

    def __init__(self, *, fails: int = 0) -> None:
        self.fails = fails
        self.steps: list[tuple[int, int]] = []

    async def keep(self, ca: CertificateAuthority) -> None:
        await asyncio.sleep(0.1)
        if self.fails:
            self.fails -= 1
            raise Unavailable("away")
        self.steps.append((ca.active.number, len(ca.authorities)))


def scenario(folder, work, *, fails=0):
    """Do ``work`` with a CA that follows its clock."""

    async def main():
        clock = virtual.SettableClock()
        ca, kept = CertificateAuthority.open(folder, "my.nsm", clock=clock), Kept(fails=fails)
        rotation = Rotation(ca, kept)
        tasks = [asyncio.create_task(rotation.run()), asyncio.create_task(rotation.follow(clock))]
        await asyncio.sleep(1)
        assert kept.steps == []
        await work(clock, ca, kept)
        for task in tasks:
            task.cancel()

    virtual.run(main())


@pytest.mark.parametrize(("step", "fails"), [(2 * LIFETIME, 0), (-86400.0, 0), (-86400.0, 3)])
def test_what_is_not_valid_by_the_clock_signs_no_more(tmp_path, step, fails):
    """Within seconds another one does, and it was published before; also where the API server was away."""

    async def work(clock, ca, kept):
        clock.by = step
        await asyncio.sleep(1 + 10 * fails)
        assert ca.valid
        assert kept.steps == [(1, 2), (2, 2)]

    scenario(tmp_path, work, fails=fails)


def test_who_is_known_signs_again(tmp_path):
    """Ahead by mistake and right again: the authority of before, which every agent knows."""

    async def work(clock, ca, kept):
        clock.by = 2 * LIFETIME
        await asyncio.sleep(1)
        clock.by = 0.0
        await asyncio.sleep(1)
        assert ca.valid
        assert kept.steps == [(1, 2), (2, 2), (1, 2)]

    scenario(tmp_path, work)


def test_agents_have_time_where_what_signs_is_valid(tmp_path):
    """A machine that slept for most of the authority's life: its successor is published, and signs later."""

    async def work(clock, ca, kept):
        clock.by = 0.8 * LIFETIME
        await asyncio.sleep(60)
        assert kept.steps == [(1, 2)]
        await asyncio.sleep(3600)
        assert kept.steps == [(1, 2), (2, 2)]

    scenario(tmp_path, work)


def test_a_step_that_asks_for_nothing(tmp_path):
    """An hour is nothing to an authority of a year."""

    async def work(clock, ca, kept):
        for step in (3600.0, 0.0):
            clock.by = step
            await asyncio.sleep(1)
        assert kept.steps == []
        assert ca.valid

    scenario(tmp_path, work)
