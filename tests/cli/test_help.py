"""Help, versions, completion and mistakes on the command line: without a mesh."""

import os
import shutil
import subprocess
import sys

import click
import pytest
from mesh_lab import nsm, nsm_process

from nsmesh.cli.main import COMMANDS, cli


@pytest.mark.parametrize("command", [*COMMANDS, "run nsmgr", "run nse", "run vpn-site"])
def test_every_command_has_help(command):
    """What it does in one line, its options, each with help; and nothing else happens."""
    text = nsm(*command.split(), "--help").ok().out
    assert text.startswith(f"Usage: nsm {command}")
    assert len(text.splitlines()[2].strip()) > 15
    found = cli.get_command(click.Context(cli), command.split()[0])
    for param in found.params:
        if isinstance(param, click.Option):
            assert param.help or param.name == "style", f"{command} {param.name} has no help"


def test_pieces_of_help():
    """The help has what a person needs: examples, exit codes, where files are looked for."""
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the mesh is not up, 130" in nsm("--help").ok().out
    for command in COMMANDS:
        assert f"  {command} " in nsm("--help").out
    for command, piece in (
        ("connect", "nsm connect kernel://secure-intranet-connectivity/nsm-1?app=web --pid 4711"),
        ("delete", "nsm delete endpoint firewall"),
        ("apply", "services, endpoints, workloads, links"),
        ("get", "docs/reference/json.md"),
        ("down", "--purge"),
        ("logs", "at every hop"),
        ("completion", "~/.bashrc"),
    ):
        assert piece in nsm(command, "--help").ok().out


def test_mistakes():
    """An unknown command or option gets the nearest one, exit code 2."""
    nsm("conect").fails("no such command 'conect'", "did you mean 'connect'?", code=2)
    nsm("frobnicate").fails("no such command 'frobnicate'", "nsm --help", code=2)
    nsm("get", "--wach", "services").fails("No such option", "--watch", code=2)
    nsm("apply").fails("Missing option '-f'", code=2)


def test_version():
    """The versions of nsmesh, Python and the kernel, a line each."""
    out = nsm_process("version").communicate(timeout=30)[0]
    assert out.splitlines()[0].startswith("nsm ")
    assert [line.split()[0] for line in out.splitlines()] == ["nsm", "python", "kernel"]


CALLS = ("asyncio", "google.protobuf", "nsmesh.rpc", "structlog")
HEAVY = ("cryptography", "nsmesh.chains", "nsmesh.datapath", "prometheus_client", "yaml")


@pytest.mark.parametrize(
    ("command", "unneeded"), [("version", CALLS + HEAVY), ("status", HEAVY)], ids=["version", "status"]
)
def test_what_the_start_does_not_need_is_not_loaded(command, unneeded, tmp_path):
    """The start of a command loads what this command needs: nothing of its list."""
    program = f"""
import contextlib, sys
from nsmesh.cli.main import main
with contextlib.suppress(SystemExit):
    main(['--run-dir', {str(tmp_path)!r}, {command!r}])
print(*sorted(set({unneeded!r}) & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stderr.splitlines()[-1]


def test_a_working_directory_that_is_gone(tmp_path):
    """Manifests are read from standard input all the same."""
    gone = tmp_path / "gone"
    gone.mkdir()
    program = "import os; os.rmdir('../gone'); from nsmesh.cli.files import sources; print(sources(['-'])[0])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        input="kind: Link",
        capture_output=True,
        text=True,
        check=True,
        cwd=gone,
    )
    assert "text='kind: Link'" in done.stdout
    assert "directory=''" in done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell):
    """Each script names the command; where its shell is there, the shell finds it valid."""
    script = nsm("completion", shell).ok().out
    assert "_NSM_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
    nsm("completion", "tcsh").fails("'tcsh' is not one of 'bash', 'zsh', 'fish'", code=2)


def complete(*words, run_dir=""):
    """Return what a shell would offer for the last of ``words``."""
    environment = os.environ | {
        "_NSM_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["nsm", *(["--run-dir", run_dir] if run_dir else []), *words]),
        "COMP_CWORD": str(len(words) + (2 if run_dir else 0)),
    }
    argv = [sys.executable, "-c", "from nsmesh.cli.main import main; main()"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.split()]


def test_completion_of_words():
    """Commands and kinds are completed without a mesh; names are none then, and no error is shown."""
    assert complete("conn") == ["connect"]
    assert complete("get", "en") == ["endpoints"]
    assert complete("get", "endpoints", "x") == []


@pytest.mark.root
def test_completion_of_names(mesh):
    """Names of objects and connections come from the mesh."""
    run_dir = str(mesh.run)
    assert complete("get", "endpoint", "g", run_dir=run_dir) == ["guard"]
    assert complete("disconnect", "b", run_dir=run_dir) == ["box-0"]
    assert complete("logs", "da", run_dir=run_dir) == ["daemon"]


def test_a_client_imports_no_other_role():
    """A pod waits for its client to start: it loads nothing of managers, CAs, datapaths and Kubernetes."""
    code = (
        "import sys\n"
        "import nsmesh.cli.main, nsmesh.cli.run, nsmesh.chains.processes, nsmesh.chains.nsc_init\n"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "nsmesh.chains.nsc_init" in loaded
    assert not loaded & {
        "nsmesh.chains.nsc",
        "nsmesh.chains.roles",
        "nsmesh.chains.settings",
        "nsmesh.chains.settings_kubernetes",
        "nsmesh.chains.settings_ovs",
        "nsmesh.chains.uplinks",
        "nsmesh.security.ca",
        "nsmesh.dns.server",
        "sqlite3",
        "nsmesh.standalone.lock",
        "importlib.metadata",
        "nsmesh.kubernetes.client",
        "lightkube",
    }
