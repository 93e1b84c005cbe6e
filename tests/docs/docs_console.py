"""Runs what a document shows: its commands in order, in one shell, and compares the output.

A block fenced as ``console`` has commands behind ``$ `` (continued behind ``> ``) and below each what it
prints. One fenced as ``sh`` has commands alone. A block whose fence names a file (``yaml service.yaml``) is
that file, written where the commands run. A block below ``<!-- not run: REASON -->`` is left alone.

In the output that a document shows, ``...`` stands for any text, alone on a line for any lines. What changes
from run to run (durations, times, process ids, generated names) matches whatever a run gives; all else,
except the width of blanks, must be equal. A command ends well unless its output shows a line with ``error:``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE = 90.0
"""Seconds that one command may take."""

_FENCE = re.compile(r"^(`{3,})(\S*)\s*(.*)$")
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->")
_CHANGING = [
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"),
    (re.compile(r"\b\d\d:\d\d:\d\d\.\d{3}"), r"\d\d:\d\d:\d\d\.\d{3}"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), r"[0-9a-f-]{36}"),
    (re.compile(r"(?<=KERNEL/)[\w-]{15}\b"), r"[\w-]{15}"),  # a generated name
    (re.compile(r"(?<![\w.])\d+(\.\d+)?(?= ?(ms|s|m|h)\b)"), r"\d+(\.\d+)?"),
    (re.compile(r"(?<=ms=)\d+(\.\d+)?"), r"\d+(\.\d+)?"),
    (re.compile(r"(?<![\w./:])\d+\.\d+(?![\w.]*[./]\d)"), r"\d+\.\d+"),
    (re.compile(r"(?<![\w./:-])(?<!port )(?<!ports )\d{4,7}(?![\w./])"), r"\d+"),
    (re.compile(r"(?<=pid=)\d+"), r"\d+"),
    (re.compile(r"\d+(?= x )|(?<= of )\d+(?= frames)"), r"\d+"),
    (re.compile(r" ?\.\.\. ?"), r".*"),
]


@dataclass(frozen=True)
class Step:
    """A command, what it shall print, and the line of the document that it stands in."""

    line: int
    command: str
    shown: list[str] | None


@dataclass(frozen=True)
class Block:
    """A fenced block. ``line`` is that of its fence; ``skip`` says why it is not run."""

    line: int
    language: str
    name: str
    lines: list[str]
    skip: str = ""

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def steps(self) -> list[Step]:
        """Return the commands of a console or sh block."""
        if self.language == "sh":
            return [Step(self.line + 1, self.text, None)]
        steps: list[Step] = []
        for number, line in enumerate(self.lines, self.line + 1):
            if line.startswith("$ "):
                steps.append(Step(number, line[2:], []))
            elif line.startswith("> ") and steps and not steps[-1].shown:
                steps[-1] = Step(steps[-1].line, f"{steps[-1].command}\n{line[2:]}", [])
            else:
                shown = steps[-1].shown if steps else None
                assert shown is not None, f"line {number} has output before a command"
                shown.append(line)
        return steps


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document in order."""
    found: list[Block] = []
    lines = text.splitlines()
    skip, at = "", 0
    while at < len(lines):
        comment = _NOT_RUN.match(lines[at])
        fence = _FENCE.match(lines[at])
        if comment:
            skip = comment[1]
        elif fence:
            end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith(fence[1]))
            found.append(Block(at + 1, fence[2], fence[3].strip(), lines[at + 1 : end], skip))
            skip, at = "", end
        at += 1
    return found


def pattern(shown: list[str]) -> re.Pattern[str]:
    """Return what the output of a command must match in full."""
    whole = ""
    for line in shown:
        if line.strip() == "...":
            whole += r"(?:.*\n)*?"
        else:
            whole += _line_pattern(line) + r"\n"
    return re.compile(whole)


def _line_pattern(line: str) -> str:
    out, rest = "", " ".join(line.split())
    while rest:
        looked = [(look.search(rest), change) for look, change in _CHANGING]
        found = [(match.start(), match, change) for match, change in looked if match]
        if not found:
            return out + re.escape(rest)
        start, match, change = min(found, key=lambda item: item[0])
        out += re.escape(rest[:start]) + change
        rest = rest[match.end() :]
    return out


def folded(text: str) -> str:
    """Return text with runs of blanks as one, and none around a line; empty lines at the end go."""
    return "\n".join(" ".join(line.split()) for line in text.rstrip().splitlines()) + "\n"


@dataclass
class Shell:
    """One bash in ``folder``. ``names`` maps words of the document to those of this run; outputs go back.

    ``prefix``: what stands before the command, where it is to run elsewhere.
    """

    folder: Path
    names: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        path = f"{BIN}:{os.environ['PATH']}"
        self._bash = subprocess.Popen(
            [*self.prefix, "bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", **self.environment},
            start_new_session=True,
            text=True,
        )

    def ours(self, text: str) -> str:
        for word, other in self.names.items():
            text = text.replace(word, other)
        return text

    def theirs(self, text: str) -> str:
        for word, other in self.names.items():
            text = text.replace(other, word)
        return text

    def run(self, command: str) -> tuple[int, str]:
        """Run a command in the shell itself; return its exit code and all that it printed."""
        mark = "~~end~~"
        stdin, stdout = self._bash.stdin, self._bash.stdout
        assert stdin
        assert stdout
        watchdog = threading.Timer(PATIENCE, self.close)
        watchdog.start()
        stdin.write(f"{{ {self.ours(command).rstrip()}\n}} </dev/null\nprintf '\\n{mark} %s\\n' $?\n")
        stdin.flush()
        printed: list[str] = []
        for line in stdout:
            if line.startswith(mark):
                watchdog.cancel()
                text = "".join(printed)
                return int(line.split()[1]), self.theirs(text.removesuffix("\n"))
            printed.append(line)
        watchdog.cancel()
        raise AssertionError(f"{command!r} did not end within {PATIENCE:g} s:\n{''.join(printed)}")

    def close(self) -> None:
        """End the shell and what it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        if self._bash.stdin and self._bash.stdout:
            self._bash.stdin.close()
            self._bash.stdout.close()


def perform(document: Path, shell: Shell, *, leave: Collection[str] = ()) -> list[Step]:
    """Do what a document shows, from its top to its end, and return the commands that were run.

    Blocks that begin with a line in ``leave`` are left out. Raises AssertionError at the first difference.
    """
    done: list[Step] = []
    for block in blocks(document.read_text()):
        if block.skip or (block.lines and block.lines[0] in leave):
            continue
        if block.name:
            target = shell.folder / block.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(shell.ours(block.text))
        elif block.language in {"console", "sh"}:
            for step in block.steps():
                check(document, shell, step)
                done.append(step)
    return done


def check(document: Path, shell: Shell, step: Step) -> None:
    """Run one command and compare what it prints with what the document shows."""
    where = f"{document.relative_to(ROOT)}:{step.line}: $ {step.command}"
    code, output = shell.run(step.command)
    shown = step.shown
    fails = bool(shown) and any(line.startswith("error:") for line in shown or [])
    assert fails or code == 0, f"{where}\nended with exit code {code}:\n{output}"
    if shown is not None and not pattern(_trimmed(shown)).fullmatch(folded(output) if output.strip() else ""):
        told = "\n".join(shown)
        raise AssertionError(f"{where}\nshows:\n{told}\nbut printed:\n{output}")


def _trimmed(shown: list[str]) -> list[str]:
    while shown and not shown[-1].strip():
        shown = shown[:-1]
    return shown
