"""The benchmarks still run. Their short form, that is: what they measure in it says nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUN = Path(__file__).parents[2] / "bench" / "run.py"
LONGEST = 150.0
"""Seconds; a loaded machine takes several times as long as a quiet one."""

pytestmark = pytest.mark.timeout(LONGEST + 20)


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(RUN), "--short", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def namespaces(pid):
    folder = Path("/run/netns")
    return [path.name for path in folder.iterdir() if str(pid) in path.name] if folder.exists() else []


def finish(run):
    try:
        out, err = run.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        run.terminate()
        out, err = run.communicate()
    return out, err


def measured(tmp_path, *names):
    run = start("--json", tmp_path / "rows.json", *names)
    out, err = finish(run)
    assert run.returncode == 0, err + out
    assert namespaces(run.pid) == []
    return out, json.loads((tmp_path / "rows.json").read_text())


@pytest.mark.parametrize("name", ["rpc", "find", "domain"])
def test_it_runs_as_anybody(name, tmp_path):
    """Every way appears in the table with its CPU time, or its time, and a ratio to something."""
    _, rows = measured(tmp_path, name)
    assert all(row["p50"] or row["cpu"] for row in rows)
    assert any(row["ratio"] == 1.0 for row in rows)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
@pytest.mark.parametrize("name", ["request", "across", "thousand", "anew", "idle", "start", "roles", "floor"])
def test_it_runs_as_root(name, tmp_path):
    """The same for those that make namespaces; none of them is left."""
    out, rows = measured(tmp_path, name)
    assert rows
    assert all(row["p50"] or row["cpu"] for row in rows)
    assert "speeds side by side" in out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_wires_by_a_switch_are_measured_or_it_says_what_is_missing(tmp_path):
    """With Open vSwitch every way has its time beside the switch's own commands."""
    out, rows = measured(tmp_path, "ovs")
    assert len(rows) == 9 or "ovs: missing" in out
    assert all(row["p50"] for row in rows)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_wires_of_user_space_are_measured_or_it_says_what_is_missing(tmp_path):
    """Packets by hand and through the mesh, the making of five kinds of wires, and a switch at rest."""
    out, rows = measured(tmp_path, "memif")
    if "memif: missing" in out:
        pytest.skip("Open vSwitch with DPDK, or dpdk-testpmd, is not installed")
    assert len(rows) == 3 * 2 + 2 * 3 + 5
    assert all(row["p50"] or row["per_second"] for row in rows)
    assert "ovs-vswitchd without packets" in out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_a_machine_is_measured_or_it_says_what_is_missing(tmp_path):
    """A machine that is wired by hand, and one by the driver, both with TCP and round trips."""
    out, rows = measured(tmp_path, "vm")
    if "vm: missing" in out:
        pytest.skip("Open vSwitch with DPDK, qemu, or the image of a machine is missing")
    assert [bool(row["p50"] and row["cpu"]) for row in rows] == [True, True]
    assert "TCP Mbit/s" in out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_packets_pass_or_it_says_what_is_missing(tmp_path):
    """Those that need other programs measure, or name the program."""
    out, rows = measured(tmp_path, "packets", "firewall")
    assert rows == []
    assert out.count("round trip us") + out.count("missing") == 2
    out, rows = measured(tmp_path, "remote")
    assert bool(rows) == ("round trip us" in out)
    assert rows or "missing" in out
    out, _ = measured(tmp_path, "srv6", "tunnels")
    assert "round trip us" in out or "srv6: not measured" in out
    assert "bare messages" in out


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces")
def test_an_interrupted_one_leaves_nothing(tmp_path):
    """SIGTERM in the middle ends processes and namespaces, too."""
    run = start("request")
    end = time.monotonic() + 60
    while not namespaces(run.pid) and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(1.0)
    run.send_signal(signal.SIGTERM)
    finish(run)
    assert run.returncode == 128 + signal.SIGTERM
    assert namespaces(run.pid) == []


def test_an_unknown_name_is_told_what_there_is():
    """A slip of the finger gets the list."""
    run = start("requests")
    _, err = finish(run)
    assert run.returncode == 2
    assert "there is no requests; there are: request, across" in err.replace("\n", " ").replace("  ", " ")
