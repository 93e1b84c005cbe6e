"""The reader of documents itself: what it takes for equal, and what not."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_console import Shell, Step, blocks, folded, pattern

TEXT = """\
Words.

```yaml folder/file.yaml
a: 1
```

<!-- not run: it takes an hour -->

```sh
make everything
```

```console
$ echo one &&
> echo two
one
...
$ true
```
"""


def test_blocks_of_a_document():
    """A file, a block that is not run, and commands with what they print, each with its line."""
    file, skipped, console = blocks(TEXT)
    assert (file.name, file.text, file.line) == ("folder/file.yaml", "a: 1\n", 3)
    assert skipped.skip == "it takes an hour"
    assert console.steps() == [Step(14, "echo one &&\necho two", ["one", "..."]), Step(18, "true", [])]


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("wire up in 25 ms: 172.16.2.1/32", "wire up in 4.1 ms: 172.16.2.1/32"),
        ("mesh is up (pid 26146, /run)", "mesh is up (pid 7001, /run)"),
        ("hop f: KERNEL/icmp-respo-s0eT, KERNEL/nsm-1", "hop f: KERNEL/icmp-respo-Ab9d, KERNEL/nsm-1"),
        ("  a   58s", "a  2s"),
        ("21 x wireguard data", "9 x wireguard data"),
        ("PING 10.0.0.1 ...", "PING 10.0.0.1 and more"),
        ("0 20ab1c2d-0000-1111-2222-333344445555", "0 00ab1c2d-0000-1111-2222-333344445556"),
        ("15:01:27.509 info", "16:02:07.000 info"),
        ("time=0.046 ms", "time=1.2 ms"),
    ],
)
def test_what_changes_from_run_to_run(shown, printed):
    """Durations, times, process ids and generated names match those of another run."""
    assert pattern([shown]).fullmatch(folded(printed))


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("address 172.16.2.1/32", "address 172.16.2.3/32"),
        ("KERNEL/nsm-1", "KERNEL/nsm-2"),
        ("0% packet loss", "10% packet loss"),
        ("on port 8080", "on port 8081"),
        ("one", "one\ntwo"),
        ("wires 1/1", "wires 0/1"),
    ],
)
def test_what_must_be_equal(shown, printed):
    """Addresses, names, ports, counts and further lines are differences."""
    assert not pattern([shown]).fullmatch(folded(printed))


def test_a_line_of_dots_stands_for_any_lines():
    """None, one or many lines, but the lines around them must be there."""
    shown = ["first", "...", "last"]
    assert pattern(shown).fullmatch("first\nlast\n")
    assert pattern(shown).fullmatch("first\na\nb\nlast\n")
    assert not pattern(shown).fullmatch("a\nlast\n")


def test_one_shell_for_all_commands(tmp_path: Path):
    """Variables, folder and background processes stay from command to command; names are translated."""
    shell = Shell(tmp_path, {"default.": "scratch."})
    try:
        assert shell.run("mkdir a && cd a && X=default.x; sleep 100 &") == (0, "")
        assert shell.run('basename $PWD; echo "$X" $(jobs -r | wc -l)') == (0, "a\ndefault.x 1\n")
        assert shell.run("printf scratch.; false") == (1, "default.")
    finally:
        shell.close()
