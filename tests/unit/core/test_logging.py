import asyncio
import errno
import io
import json

import pytest
import structlog

from nsmesh.core import logging, virtual
from nsmesh.core.scope import Scope

log = structlog.get_logger()


@pytest.fixture
def lines():
    out = io.StringIO()
    logging.configure(role="test", level="INFO", stream=out)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_says_role_level_and_time(lines):
    """Every line carries who wrote it, how grave it is and when it was written."""
    log.warning("wire lost", connection="c-1")
    (line,) = lines()
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "wire lost",
        "connection": "c-1",
        "level": "warning",
        "role": "test",
        "element": "test_logging",
    }


def test_a_line_that_cannot_be_written_is_nobodys_error():
    """On a full disk whoever says something goes on, and what is said later is written again."""

    class Disk(io.StringIO):
        full = False

        def write(self, text):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(text)

    disk = Disk()
    logging.configure(role="test", level="INFO", stream=disk)
    try:
        disk.full = True
        log.warning("unheard")
        log.error("unheard")
        disk.full = False
        log.info("heard")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    assert [json.loads(line)["event"] for line in disk.getvalue().splitlines()] == ["heard"]


def test_below_the_level_nothing_is_written(lines):
    """Lines below the level are dropped, those at it and above are not."""
    for write in (log.debug, log.info, log.warning, log.error):
        write("said")
    assert [line["level"] for line in lines()] == ["info", "warning", "error"]


def test_the_level_changes_while_the_process_runs(lines):
    """A logger that has been used before follows the new level, both ways."""
    log.debug("unheard")
    logging.set_level("TRACE")
    log.debug("heard")
    logging.set_level("ERROR")
    log.warning("unheard again")
    assert [line["event"] for line in lines()] == ["heard"]


def test_an_unknown_level_means_info(lines):
    """A level that nobody knows does not silence a process."""
    logging.set_level("LOUD")
    log.debug("unheard")
    log.info("heard")
    assert [line["event"] for line in lines()] == ["heard"]


def test_an_exception_is_written_with_its_traceback(lines):
    """What failed is told with where it failed."""
    try:
        int("no wire")
    except ValueError:
        log.exception("background task failed")
    (line,) = lines()
    assert line["level"] == "error"
    assert "ValueError: invalid literal" in line["exception"]


def test_a_line_says_which_element_wrote_it(lines):
    """The element is the module that logs, also where another one writes on its behalf, or it is given."""
    from nsmesh.rpc.telling import Telling

    log.info("ours")
    log.info("given", element="heal")
    Telling().warn("on behalf")
    assert [line["element"] for line in lines()] == ["test_logging", "heal", "test_logging"]


def test_lines_of_a_call_name_its_peer_and_connection(lines):
    """What a call says and what it waits for names its peer; work that outlives it, and timers, do not."""

    async def say(event):
        log.info(event)

    async def call(scope):
        logging.of_request(peer="spiffe://td/nsc")
        with logging.of_connection("c-0"):
            log.info("inside")
            log.info("of another", connection="c-1")
            await scope.finish(lambda: say("a part"), name="part")
            scope.spawn(say("apart"), name="apart")
            scope.after(0, lambda: log.info("later"))
        log.info("behind")
        await asyncio.sleep(1)

    async def main():
        async with Scope() as scope:
            await asyncio.gather(call(scope), asyncio.create_task(say("beside")))

    virtual.run(main())
    told = {line["event"]: (line.get("peer"), line.get("connection")) for line in lines()}
    peer = "spiffe://td/nsc"
    assert told == {
        "inside": (peer, "c-0"),
        "of another": (peer, "c-1"),
        "a part": (peer, "c-0"),
        "behind": (peer, None),
        "apart": (None, None),
        "later": (None, None),
        "beside": (None, None),
    }
