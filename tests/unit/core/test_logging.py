import io
import json

import pytest
import structlog

from nsmesh.core import logging

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
