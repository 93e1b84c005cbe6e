"""The demonstration is killed: what it left goes away with the next command, whichever that is."""

import signal

import pytest
from mesh_lab import until

pytestmark = pytest.mark.root


def killed(lab, word):
    """Run the demo until it has printed ``word``, then kill it; its daemon goes on."""
    demo = lab.process("demo")
    for line in demo.stdout:
        if word in line:
            break
    demo.send_signal(signal.SIGKILL)
    demo.communicate()


@pytest.mark.parametrize("word", ["is up", "firewall (firewall) ready", "all claims hold"])
def test_down_takes_it_away(lab, word):
    """At its beginning, in the middle and at its end."""
    killed(lab, word)
    lab.nsm("down", "--purge").ok()
    until(lambda: not lab.left())
    assert not lab.run.exists()
    assert not lab.state.exists()


def test_the_next_demo_takes_it_away(lab):
    """A demo after one that was killed with its daemon runs as if nothing had been."""
    killed(lab, "ready")
    lab.kill_daemon()
    lab.nsm("demo").ok()
    until(lambda: not lab.left())


@pytest.mark.parametrize("word", ["is up", "link internet made", "first ping"])
def test_an_interrupt_cleans_up(lab, word):
    """Ctrl-C at several moments: exit code 130, and the machine is as it was."""
    demo = lab.process("demo")
    for line in demo.stdout:
        if word in line:
            break
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=30)
    assert demo.returncode == 130
    until(lambda: not lab.left())
