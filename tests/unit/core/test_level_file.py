"""The level of logs, as a mounted ConfigMap says it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
import structlog

from nsmesh.core import logging
from nsmesh.core.level_file import LevelFile, followed


@pytest.fixture
def lines():
    """Give what is logged; the level is INFO at first."""
    out = io.StringIO()
    logging.configure(role="test", stream=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()


def replaced(folder, word):
    """Change a file as a kubelet changes those of a ConfigMap: by a link to another folder."""
    version = folder / f"..{time.monotonic_ns()}"
    version.mkdir()
    (version / "level").write_text(word)
    (folder / "..new").symlink_to(version.name)
    (folder / "..new").rename(folder / "..data")
    if not (folder / "level").is_symlink():
        (folder / "level").symlink_to("..data/level")


def test_the_level_is_that_of_the_file(lines, tmp_path):
    """Each change counts, nonsense and an absent file change nothing, and what is wrong is said once."""
    log = structlog.get_logger()
    file = LevelFile(tmp_path / "level", "INFO")

    def written(word):
        if word is None:
            (tmp_path / "level").unlink()
        else:
            replaced(tmp_path, word)
        file.look()
        file.look()
        before = len(lines())
        log.debug("low")
        log.error("high")
        return len(lines()) - before

    assert written("DEBUG\n") == 2
    assert written("ERROR") == 1
    assert written("LOUD") == 1
    said = [line for line in lines() if line["event"] == "no level of logs"]
    assert not said, "a warning is below the level that was chosen"
    assert written("debug") == 2
    assert written("LOUD") == 2
    (said,) = [line for line in lines() if line["event"] == "no level of logs"]
    assert said["said"] == "LOUD"
    assert "DEBUG" in said["known"]
    assert written(None) == 1


def test_without_a_file_nothing_is_followed(lines):
    """The level stays as the variable says it, and nobody looks for anything."""

    async def main():
        async with followed("", "WARN") as told:
            assert told.level == "WARN"
            assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_a_role_follows_it(tmp_path):
    """A process whose ConfigMap changes says more, and less again, without a restart."""
    replaced(tmp_path, "ERROR")
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "NSM_LISTEN_ON": f"unix://{tmp_path}/r.sock",
        "NSM_LOG_LEVEL_FILE": str(tmp_path / "level"),
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "nsmesh.cli.main", "run", "registry-memory"],
            env=environment,
            stdout=out,
            stderr=out,
        )

    def until(probe):
        end = time.monotonic() + 40
        while not probe():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)

    try:
        until((tmp_path / "r.sock").exists)
        assert '"lowest": "ERROR"' in log.read_text()
        replaced(tmp_path, "DEBUG")
        until(lambda: '"lowest": "DEBUG"' in log.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
