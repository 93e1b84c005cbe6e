"""logs: of all, of one, of a connection at every hop, and as they come."""

import json

import pytest
from mesh_lab import finish

pytestmark = pytest.mark.root


def test_of_one(mesh):
    """The log of a workload is what it wrote; that of an endpoint is read for people, or raw."""
    assert mesh.nsm("logs", "box").ok().out == "box I am the box\n"
    pretty = mesh.nsm("logs", "guard").ok().out
    assert "endpoint ready name=guard" in pretty
    assert "{" not in pretty.partition("endpoint ready")[0]
    raw = mesh.nsm("logs", "guard", "--json").ok().out.splitlines()
    assert any(json.loads(line)["event"] == "endpoint ready" for line in raw)


def test_of_all(mesh):
    """Without a target the lines of all come in the order of time; -n says how many."""
    lines = mesh.nsm("logs", "-n", "0").ok().out.splitlines()
    assert {"daemon", "guard", "responder", "box"} <= {word for line in lines for word in line.split()[:3]}
    times = [line[:12] for line in lines if line[2:3] == ":"]
    assert times == sorted(times)
    assert len(mesh.nsm("logs", "-n", "3").ok().out.splitlines()) == 3


def test_of_a_connection(mesh):
    """A connection is found at every hop, under the id that it has there, and no other is."""
    hops = mesh.get("connections")[0]["hops"]
    lines = mesh.nsm("logs", "box-0", "-n", "0").ok().out
    assert "wire up connection=box-0" in lines
    assert f"wire passes connection={hops[3]['id']}" in lines
    mesh.nsm("logs", "box-00").fails("no line of the logs is about box-00", "logs here:", "guard")
    mesh.nsm("logs", "ox-0").fails("no line of the logs is about ox-0")


def test_of_an_element(mesh):
    """Only lines of the elements that are named are printed, in a connection's log as well."""
    lines = mesh.nsm("logs", "--element", "supervisor", "--json", "-n", "0").ok().out.splitlines()
    assert {json.loads(line)["element"] for line in lines} == {"supervisor"}
    lines = mesh.nsm("logs", "-e", "transparent", "-e", "clients", "-n", "0").ok().out
    assert "wire passes" in lines
    assert "process started" not in lines
    mesh.nsm("logs", "--element", "tiemout").fails("no line of the logs is of the element tiemout")


def test_as_they_come(mesh):
    """-f goes on with what is written, until it is interrupted."""
    follow = mesh.process("logs", "-f", "-n", "0", "--json", "daemon")
    assert follow.stdout.readline()
    mesh.nsm("connect", "kernel://guarded/nsm-3", "--netns", mesh.namespace("l"), "--name", "l").ok()
    while "l-0" not in follow.stdout.readline():
        pass
    mesh.nsm("disconnect", "l-0").ok()
    follow.send_signal(2)
    finish(follow).fails("interrupted", code=130)


def test_where_there_are_none(tmp_path):
    """A mesh that is not up has no logs."""
    from mesh_lab import nsm

    nsm("--mesh", "x", "--run-dir", str(tmp_path), "logs").fails("there are no logs in", "nsm up")
