"""The short form of chaos: what is promised without a time holds, whatever the machine does besides."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from mesh_lab import nsm, nsm_process, until

from nsmesh.chaos.clocks import can_be_set
from nsmesh.datapath import netns
from nsmesh.datapath.ovs_programs import lacks_switch

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]
needs_switch = pytest.mark.skipif(bool(lacks_switch()), reason="Open vSwitch is not installed")


def test_the_short_form(tmp_path):
    """No packet is lost, nothing has changed, nothing leaks, and new Requests are served at last."""
    file = tmp_path / "chaos.json"
    nsm("chaos", "run", "--short", "--json", str(file))
    rows = json.loads(file.read_text())
    assert len(rows) == 4
    for row in rows:
        assert row["sent"] > 1000
        seen = (row["lost"], row["changed"], row["leaks"], row["not_recovered"])
        assert seen == (0, [], [], 0), row


@pytest.mark.skipif(not can_be_set(), reason="libfaketime is not here")
def test_the_clock_of_all_is_set(tmp_path):
    """An hour ahead, an hour back, and right again: identities are renewed, and no wire notices."""
    file = tmp_path / "chaos.json"
    names = ("local-mesh-clock-ahead-1h", "local-mesh-clock-back-1h")
    nsm("chaos", "run", *names, "--repeat", "1", "--json", str(file))
    rows = json.loads(file.read_text())
    assert [row["scenario"] for row in rows] == [*names]
    for row in rows:
        assert row["sent"] > 1000
        seen = (row["lost"], row["changed"], row["leaks"], row["not_recovered"])
        assert seen == (0, [], [], 0), row


@needs_switch
def test_wires_of_a_switch(tmp_path):
    """The same promises as of the kernel's wires, and both daemons of the switch are killed."""
    file = tmp_path / "chaos.json"
    harmed = ("interfacedown", "interfacedeleted")
    names = (*(f"ovs-client-{what}" for what in harmed), "ovs-switch-kill", "ovs-endpoint-dies")
    nsm("chaos", "run", *names, "--repeat", "1", "--json", str(file))
    rows = json.loads(file.read_text())
    assert [row["scenario"] for row in rows] == [*names]
    assert [(row["changed"], row["leaks"], row["not_recovered"]) for row in rows] == [([], [], 0)] * 4


@needs_switch
def test_a_killed_forwarder_of_a_switch_loses_nothing(tmp_path):
    """Few packets: a switch in user space that does not come to the processor loses some of many."""
    file = tmp_path / "chaos.json"
    nsm("chaos", "run", "ovs-forwarder-kill", "--repeat", "1", "--situation", "ping", "--json", str(file))
    (row,) = json.loads(file.read_text())
    assert row["sent"] > 1
    assert (row["lost"], row["changed"], row["leaks"], row["not_recovered"]) == (0, [], [], 0)


def test_two_meshes_at_a_time(tmp_path):
    """Rows come in the order of the question, and the document says how many meshes there were."""
    file, docs = tmp_path / "chaos.json", tmp_path / "table.md"
    docs.write_text("<!-- chaos: measured -->\n<!-- chaos: end -->\n")
    names = ("local-disk-full", "local-alpha-sigterm", "remote-client-interfacedown")
    nsm(
        *("chaos", "run", *names, "--repeat", "1", "--at-once", "2"),
        *("--json", str(file), "--write-docs", str(docs)),
    )
    rows = json.loads(file.read_text())
    assert [row["scenario"] for row in rows] == [*names]
    assert [(row["changed"], row["leaks"], row["not_recovered"]) for row in rows] == [([], [], 0)] * 3
    assert "2 meshes at a time." in docs.read_text()


def test_nothing_is_left_of_meshes_at_a_time():
    """SIGTERM for the run is one for each part of it."""
    process = nsm_process("chaos", "run", "local-forwarder-sigstop", "local-disk-full", "--at-once", "2")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: len(pids := children.read_text().split()) == 2 and all(map(meshes_of, pids)), 60)
    pids = [int(pid) for pid in children.read_text().split()]
    process.terminate()
    process.communicate(timeout=60)
    assert [left_of(f"chaos{pid}", pid) for pid in pids] == [[], []]


def meshes_of(pid: int | str) -> list[Path]:
    return [*Path(tempfile.gettempdir()).glob(f"nsm-chaos-{pid}-*")]


def test_an_unknown_scenario_is_refused():
    """The error says where the names are."""
    nsm("chaos", "run", "nothing").fails("there is no scenario nothing", "nsm chaos list")


def test_a_short_soak():
    """Requests are served, nothing leaks, nothing is left, and what each process holds is told."""
    done = nsm("chaos", "soak", "--minutes", "0.1", "--seed", "3", "-o", "json")
    seen = json.loads(done.out)
    assert seen["requests"] > 0
    assert seen["closes"] >= seen["requests"]
    assert (seen["leaks"], seen["left"]) == ([], [])
    rows = {row["process"]: row for row in seen["processes"]}
    assert rows.keys() == {"daemon", "registry", "nsmgr", "forwarder", "alpha", "beta"}
    assert all(row["memory_kib"][0] > 0 and row["threads"][0] > 0 for row in rows.values())


@pytest.mark.parametrize(
    ("late", "number"), [(0.7, signal.SIGINT), (4.0, signal.SIGINT), (4.0, signal.SIGTERM)]
)
def test_nothing_is_left_after_an_interrupt(late, number):
    """Ctrl-C, early or late, or SIGTERM leaves no process, namespace or folder of the suite."""
    process = nsm_process("chaos", "run", "local-forwarder-sigstop")
    name = f"chaos{process.pid}"
    time.sleep(late)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode in {130, -number}  # the latter where Python still loads its modules
    until(lambda: not left_of(name, process.pid), 10, lambda: left_of(name, process.pid))


def test_a_run_in_the_background_heeds_sigterm(tmp_path):
    """A shell's ``&`` has it ignore Ctrl-C, and SIGTERM leaves nothing all the same."""
    started = tmp_path / "pid"
    words = f"{sys.executable} -m nsmesh.cli.main chaos run local-forwarder-sigstop"
    subprocess.run(["sh", "-c", f"{words} >/dev/null 2>&1 & echo $! > {started}"], check=True)
    pid = int(started.read_text())
    until(lambda: left_of(f"chaos{pid}", pid), 30)
    time.sleep(3.0)
    os.kill(pid, signal.SIGTERM)
    until(lambda: not left_of(f"chaos{pid}", pid), 60, lambda: left_of(f"chaos{pid}", pid))


def left_of(name: str, pid: int) -> list[str]:
    folders = [str(path) for path in meshes_of(pid)]
    spaces = [path for path in netns.named() if name in path]
    running = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes()
        except OSError:
            continue
        if f"nsm-chaos-{pid}-".encode() in words:
            running.append(str(file))
    return folders + spaces + running
