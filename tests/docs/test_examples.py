"""Every example runs as its README says."""

from __future__ import annotations

import shutil

import pytest
from docs_console import ROOT, blocks, perform
from docs_mesh import scratch_shell
from tiny_image import MissingError, image

from nsmesh.datapath.ovs_programs import lacks_dpdk

pytestmark = [pytest.mark.root, pytest.mark.timeout(200)]


def lacks_testpmd() -> str:
    """Return why there is no packet processor of DPDK here, or nothing."""
    return "" if shutil.which("dpdk-testpmd") else "dpdk-testpmd is not installed"


def lacks_machines() -> str:
    """Return why this host boots no virtual machine of the example, or nothing."""
    absent = [name for name in ("qemu-system-x86_64", "busybox") if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    if why := lacks_dpdk():
        return why
    try:
        image()
    except MissingError as error:
        return str(error)
    return ""


NEEDS = {
    "machine-endpoint": lacks_machines,
    "memif-and-kernel": lacks_dpdk,
    "memif-over-two-nodes": lacks_dpdk,
    "memif-two-testpmd": lacks_testpmd,
    "virtual-machine": lacks_machines,
}
"""By example, what says why this host cannot run it, or nothing."""
EXAMPLES = sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir())


@pytest.mark.parametrize("example", EXAMPLES)
def test_example(example):
    """The commands of its README do, in a scratch mesh, what it shows; none of them is left out."""
    if example in NEEDS and (why := NEEDS[example]()):
        pytest.skip(why)
    readme = ROOT / "examples" / example / "README.md"
    assert not any(block.skip for block in blocks(readme.read_text()))
    with scratch_shell() as shell:
        assert perform(readme, shell)
