"""A mesh goes over to another installation of nsmesh while packets and Requests pass, or stays as it is."""

from __future__ import annotations

import subprocess
import time

import pytest
from asking import Asking
from installation import VERSION, Installation
from mesh_lab import BOX, Done, Lab, documents, responder, until
from test_wires_outlive import Life

import nsmesh

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture
def other(tmp_path):
    return Installation(tmp_path / "other")


def upgraded(lab, other, *arguments):
    argv = [str(other.python), "-m", "nsmesh.cli.main", *lab.options, "upgrade", *arguments]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def populated(lab, *options):
    lab.up(*options)
    lab.apply(documents(responder(), BOX)).ok()
    hand = lab.namespace("hand")
    lab.nsm("connect", "kernel://ping/nsm-1", "--netns", hand, "--name", "hand").ok()
    return lab


def versions(lab):
    """Return the daemon's version and its Python."""
    return lab.status()["version"], lab.status()["python"]


@pytest.mark.parametrize("options", [[], ["--separate"]], ids=["one process", "apart"])
def test_another_version_takes_over(other, options):
    """``--check`` changes nothing; then all run the new one, no Request is refused and no packet lost."""
    with Lab() as lab:
        populated(lab, *options)
        life = Life(lab)
        daemon = lab.daemon()
        checked = upgraded(lab, other, "--check").ok().out
        assert f"can go over to {VERSION} by {other.python}" in checked
        assert (lab.daemon(), versions(lab)[0]) == (daemon, nsmesh.__version__)
        space = lab.namespace("asks")
        with Asking(str(lab.run), "ping", f"/run/netns/{space}") as stream:
            out = upgraded(lab, other).ok().out
            time.sleep(0.3)
            assert stream.end().refused == []
        assert f"runs {VERSION}, and ran {nsmesh.__version__}" in out
        assert versions(lab) == (VERSION, str(other.python))
        life.goes_on(but=["responder"])
        assert lab.daemon() != daemon


def test_one_that_cannot_read_what_is_kept_is_refused(other):
    """Nothing has begun then: the same processes run, and the error says which tables."""
    other.edit("journal/tables.py", "SCHEMA = 1", "SCHEMA = 3")
    with Lab() as lab:
        populated(lab)
        life = Life(lab)
        daemon = lab.daemon()
        for arguments in (["--check"], []):
            upgraded(lab, other, *arguments).fails(
                f"nsmesh {VERSION} cannot read what {nsmesh.__version__} keeps",
                "the journal has tables of version 1, and it reads 3",
            )
        assert lab.daemon() == daemon
        life.goes_on()


def test_one_that_does_not_start_is_refused(other):
    """An installation without what it needs is found out before anything ends."""
    other.edit("chains/processes.py", "import asyncio", "import asyncio, no_such_module")
    with Lab() as lab:
        populated(lab)
        daemon = lab.daemon()
        upgraded(lab, other, "--check").fails("does not run nsmesh", "no_such_module")
        assert lab.daemon() == daemon


def test_a_role_that_does_not_get_ready_sends_all_back(other):
    """The roles that were replaced before it run the old version again, with all wires and no packet lost."""
    other.edit(
        "chains/processes.py", "    mechanisms = mechanisms_of(settings)", '    raise SystemExit("broken")'
    )
    other.edit("journal/tables.py", "SCHEMA = 1", "SCHEMA = 2")
    other.edit("journal/tables.py", "= {}\n", '= {1: ("ALTER TABLE connections ADD COLUMN more TEXT",)}\n')
    with Lab() as lab:
        populated(lab, "--separate")
        life = Life(lab)
        daemon = lab.daemon()
        upgraded(lab, other).fails(
            f"forwarder of version {VERSION} did not get ready, and all is back at {nsmesh.__version__}"
        )
        assert (lab.daemon(), versions(lab)[0]) == (daemon, nsmesh.__version__)
        life.goes_on()


def test_a_daemon_that_does_not_start_is_followed_by_the_old_one(other):
    """The command starts the version that ran; roles of the new version and all wires go on."""
    other.edit(
        "standalone/daemon.py", "    loop = asyncio.get_running_loop()", '    raise SystemExit("broken")'
    )
    with Lab() as lab:
        populated(lab)
        life = Life(lab)
        upgraded(lab, other).fails(
            f"the daemon of version {VERSION} does not start, and that of {nsmesh.__version__} goes on"
        )
        until(lambda: versions(lab)[0] == nsmesh.__version__)
        life.goes_on(but=["responder"])
