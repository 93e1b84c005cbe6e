"""Files that are too much: refused at once, in one sentence, in bounded memory, before a mesh is asked."""

import resource
import subprocess

import pytest
from mesh_lab import NSM

from nsmesh.cli.files import LIMIT

DOCUMENT = """
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {{name: s{number}}}
---
"""
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


def texts():
    """Return what is given and what is said of it."""
    many = "".join(DOCUMENT.format(number=number) for number in range(130_000))
    assert len(many) > 10 << 20
    return {
        "ten megabytes of one text": ("a: " + "x" * (10 << 20), f"more than {LIMIT} bytes"),
        "ten megabytes of documents": (many, f"more than {LIMIT} bytes"),
        "aliases of aliases": (BOMB, "more than 50000 values"),
    }


def bounded():
    resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))
    resource.setrlimit(resource.RLIMIT_CPU, (10, 10))


@pytest.mark.parametrize("way", ["standard input", "file"])
@pytest.mark.parametrize("what", texts())
def test_it_is_refused_at_once(tmp_path, what, way):
    """One sentence and its remedy, within seconds of processor time and 400 MB of address space."""
    text, said = texts()[what]
    path = tmp_path / "big.yaml"
    path.write_text(text)
    with path.open() as given:
        done = subprocess.run(
            [*NSM, "--mesh", "nobody", "apply", "-f", "-" if way == "standard input" else str(path)],
            stdin=given,
            capture_output=True,
            text=True,
            preexec_fn=bounded,
            check=False,
        )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= 3
