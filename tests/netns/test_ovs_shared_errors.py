"""An Open vSwitch that cannot be used: what is wrong with it is said, and nothing of it is changed."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import datapath_lab as lab
import pytest
from ovs_lab import answering, kernel, listening, pings
from their_switch import WITH_DPDK, TheirSwitch

from nsmesh.core.errors import Conflict, Invalid, MeshError, NotFound, Refused, Unavailable
from nsmesh.datapath import netns, ovs_programs
from nsmesh.datapath.base import CrossConnect
from nsmesh.datapath.ovs_keeper import keeping
from nsmesh.datapath.ovs_there import path_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]


@pytest.fixture
def theirs(tmp_path):
    """Yield a switch of somebody else's that does not run yet."""
    with lab.spaces(3) as (space, c, d):
        switch = TheirSwitch(tmp_path / "theirs", space, c, d)
        switch.folder.mkdir()
        try:
            yield switch
        finally:
            switch.end()


def refused(theirs, error, said, **given):
    """Try to use a switch, and check what is said: in the sentence and its remedy."""

    async def main():
        datapath = theirs.driver(theirs.folder.parent / "ours", [], **given)
        try:
            with pytest.raises(error, match=said) as told:
                await datapath.switch.ensure()
        finally:
            await datapath.aclose()
        assert told.value.remedy
        return told.value

    return asyncio.run(main())


def test_no_socket_and_a_socket_at_which_nobody_listens(theirs):
    """By its path, and the name of the setting."""
    told = refused(theirs, NotFound, f"there is no socket {theirs.database}")
    assert "NSM_SWITCH_DATABASE" in told.remedy
    theirs.start_database()
    theirs.kill("ovsdb-server")
    refused(theirs, Unavailable, f"nobody listens at {theirs.database}")


def test_no_permission(theirs):
    """Somebody who is not root: the user's number, and what to do."""
    theirs.start_database()
    for folder in (theirs.folder, *theirs.folder.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    program = (
        "import os,asyncio,pathlib; from nsmesh.datapath.ovs_there import check; os.setuid(65534)\n"
        f"asyncio.run(check(pathlib.Path({str(theirs.database)!r}), 'netdev'))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"the socket {theirs.database} may not be used by user 65534" in done.stderr


def test_a_database_of_something_else(theirs):
    """Its schema is named."""
    theirs.start_database("/usr/share/openvswitch/local-config.ovsschema")
    refused(theirs, Refused, "is not that of a switch: it has Local_Config, and no Open_vSwitch")


def test_a_database_without_a_switch(theirs):
    """One that is empty, and one whose ``ovs-vswitchd`` does not run."""
    theirs.start_database()
    refused(theirs, Unavailable, "is empty: no ovs-vswitchd has worked with it")
    theirs.vsctl("--no-wait", "init")
    refused(theirs, Unavailable, "answers, and its ovs-vswitchd does not")


def test_types_of_datapaths_that_are_not_there(theirs):
    """One that nobody knows, and the kernel's where it has no Open vSwitch; no bridge is left behind."""
    theirs.start()
    before = theirs.everything()
    refused(theirs, Refused, "has no datapaths of type nonesuch: it has netdev, system", kind="nonesuch")
    if not Path("/sys/module/openvswitch").exists():
        said = "with a datapath of type system: the module openvswitch of the kernel is not here"
        told = refused(theirs, Refused, said, kind="system")
        assert "NSM_DATAPATH_TYPE" in told.remedy
    assert theirs.everything() == before


def test_a_switch_in_another_namespace(theirs):
    """It would not find our interfaces: both namespaces are named."""
    theirs.start()
    space, theirs.space = theirs.space, theirs.c
    told = refused(theirs, Conflict, f"lives in another network namespace than {theirs.c}")
    assert f"/proc/{theirs.pid('ovs-vswitchd')}/ns/net" in told.remedy
    theirs.space = space
    assert netns.identity(told.remedy.rpartition(" ")[2]) == netns.identity(space)


@pytest.mark.parametrize("remote", ["tcp:127.0.0.1:6640", "unix:db.sock", "db.sock", "punix:/run/db.sock"])
def test_databases_that_are_no_sockets_of_this_node(remote):
    """Named as they were given."""
    with pytest.raises(Invalid, match=f"^{remote} is no unix socket"):
        path_of(remote)
    assert path_of("unix:/run/db.sock") == path_of("/run/db.sock") == Path("/run/db.sock")


@pytest.mark.skipif(bool(ovs_programs.lacks_dpdk()), reason="Open vSwitch with DPDK is not installed")
def test_memif_goes_where_dpdk_runs_already(theirs, tmp_path):
    """It is refused where it does not run, and nobody starts it; a client gets its packets where it does.

    Also after the switch was killed and started again.
    """
    theirs.program = WITH_DPDK

    async def main(pod):
        datapath = theirs.driver(tmp_path / "ours", [pod], memory=256)
        wire = CrossConnect("w1", kernel(pod), listening(datapath))
        async with keeping(datapath.switches):
            with pytest.raises(Refused, match="DPDK does not run in the switch"):
                await datapath.apply(wire)
            assert "dpdk" not in theirs.vsctl("get", "Open_vSwitch", ".", "other_config")
            extra = f"--no-huge --legacy-mem -m 256 --no-pci --file-prefix=their{os.getpid()}"
            theirs.vsctl("set", "Open_vSwitch", ".", f"other_config:dpdk-extra={extra}")
            theirs.vsctl("set", "Open_vSwitch", ".", "other_config:dpdk-init=true")
            settings = theirs.theirs()
            await datapath.apply(wire)
            async with answering(listening(datapath).socket):
                assert await pings(pod, seconds=20)
            theirs.kill("ovs-vswitchd")
            theirs.start()
            async with asyncio.timeout(60):
                while True:
                    try:
                        async with answering(listening(datapath).socket):
                            if await pings(pod, seconds=20):
                                break
                    except (OSError, MeshError, TimeoutError):
                        await asyncio.sleep(0.2)
            await datapath.remove("w1")
            assert theirs.theirs() == settings
        await datapath.switches.stop()
        await datapath.aclose()
        assert "nsm" not in theirs.vsctl("show")

    with lab.spaces(1) as (pod,):
        theirs.start()
        asyncio.run(main(pod))
