"""The logs of a mesh stay small while it runs."""

import os

import pytest
from mesh_lab import until

from nsmesh.standalone.log_files import LARGEST, PAUSE, earlier

pytestmark = pytest.mark.root


def test_a_log_that_has_grown_is_put_aside(lab):
    """By the daemon, without being asked; the file goes on from its beginning."""
    lab.up()
    log = lab.run / "logs" / "chatty.log"
    log.touch()
    os.truncate(log, LARGEST + 1)
    until(earlier(log).exists, 2 * PAUSE + 10)
    assert earlier(log).stat().st_size == LARGEST + 1
    assert log.stat().st_size == 0
