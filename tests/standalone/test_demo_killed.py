"""The demonstration is killed, left up, or there already: the next one goes on, or leaves it alone."""

import signal

import pytest
from mesh_lab import finish, until

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


@pytest.mark.parametrize("daemon", ["lives", "dead"])
def test_the_next_demo_takes_it_away(lab, daemon):
    """A demo after one that was killed, alone or with its daemon, runs as if nothing had been."""
    killed(lab, "ready")
    if daemon == "dead":
        lab.kill_daemon()
    assert "what an earlier demo had left is removed" in lab.nsm("demo").ok().out
    until(lambda: not lab.left())
    assert not lab.state.exists()


def test_the_next_demo_ends_one_that_was_left_up(lab):
    """Of two demos with ``--keep`` the second one has the mesh, with a daemon of its own."""
    lab.nsm("demo", "--keep").ok()
    first = lab.daemon()
    lab.nsm("demo", "--keep").ok()
    assert lab.daemon() != first


def test_a_living_demo_is_left_alone(lab):
    """A second demo in the mesh of a living one says so, changes nothing, and the first one goes on."""
    first = lab.process("demo")
    next(line for line in first.stdout if "is up" in line)
    lab.nsm("demo").fails(f"a demo runs in the mesh {lab.mesh} already (pid {first.pid})", "nsm --mesh NAME")
    assert finish(first, 60).ok().out.rstrip().endswith("no namespace, interface, process or file is left")


def test_a_mesh_of_somebody_else_is_left_alone(lab):
    """A demo does not touch a mesh that no demo made, up or down."""
    lab.up()
    daemon = lab.daemon()
    lab.nsm("demo").fails(f"the mesh {lab.mesh} is no demo's", "nsm --mesh NAME demo")
    assert lab.status()["pid"] == daemon
    lab.nsm("down").ok()
    lab.nsm("demo").fails(f"the mesh {lab.mesh} is no demo's", "down --purge")
    assert (lab.state / "registry.db").exists()


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
