"""What others take out of a switch is put back: ports, flows, and the other port of a pair."""

import asyncio
import shutil
import subprocess

import datapath_lab as lab
import pytest
from ovs_lab import driver, killed, pings, repairing

from nsmesh.datapath.ovs import names_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(60),
    pytest.mark.skipif(not shutil.which("ovs-vswitchd"), reason="Open vSwitch is not installed"),
]


def vsctl(switch, *words):
    command = ("ovs-vsctl", f"--db=unix:{switch.database}", "--no-wait", *words)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ofctl(switch, *words):
    subprocess.run(
        ("ovs-ofctl", "-O", "OpenFlow13", words[0], f"unix:{switch.flows}", *words[1:]), check=True
    )


def scenario(tmp_path, body, **given):
    async def main(make, a, b):
        datapath = make()
        async with repairing(datapath) as told:
            await datapath.apply(lab.simple(a, b))
            await body(datapath, told, a, b)
        await datapath.aclose()

    with driver(tmp_path, pods=2, **given) as made:
        asyncio.run(main(*made))


def ports(datapath):
    return vsctl(datapath.switch, "list-ports", datapath.switch.bridge).split()


@pytest.mark.parametrize("side", [0, 1])
def test_a_port_that_somebody_deletes_is_made_again(tmp_path, side):
    """On either side; the wire's ends are the ones they were."""

    async def body(datapath, told, a, b):
        before = lab.names(a), lab.names(b)
        for _ in range(2):
            vsctl(datapath.switch, "del-port", names_of("w1")[side])
            assert await pings(a, seconds=5)
        assert set(told) == {"w1"}
        assert (lab.names(a), lab.names(b)) == before
        assert sorted(ports(datapath)) == sorted(names_of("w1"))

    scenario(tmp_path, body)


def test_flows_that_somebody_deletes_are_put_back(tmp_path):
    """All, and those of one mark alone; no wire is made anew for that."""

    async def body(datapath, told, a, b):
        await datapath.apply(lab.simple(a, b, "w2", 2))
        for words in ((), ("in_port=1",), ()):
            ofctl(datapath.switch, "del-flows", *words)
            assert await pings(a, 1, seconds=5)
            assert await pings(a, 2, seconds=5)
        assert told == []

    scenario(tmp_path, body)


@pytest.mark.parametrize("both", [False, True])
def test_a_pair_in_advance_of_which_a_port_is_deleted_is_given_up(tmp_path, both):
    """Its wire gets another one, and there are as many as before."""

    async def body(datapath, told, a, b):
        await datapath.apply(lab.simple(a, b, "w2", 2))
        switch = datapath.switch
        pair = await switch.ports.pair_with("w2")
        assert pair
        for name in (f"{pair}a", f"{pair}b") if both else (f"{pair}b",):
            vsctl(switch, "del-port", name)
        assert await pings(a, 2, seconds=5)
        assert set(told) == {"w2"}
        assert not [name for name in ports(datapath) if name.startswith(pair)]
        ofctl(switch, "del-flows")
        assert await pings(a, 2, seconds=5)

    scenario(tmp_path, body, spares=4)


def test_what_the_driver_takes_out_itself_is_nobody_elses_doing(tmp_path):
    """Nor is what others have in the switch; it is heard of again after the database was killed."""

    async def body(datapath, told, a, b):
        switch = datapath.switch
        await datapath.apply(lab.simple(a, b, "w2", 2))
        await datapath.remove("w2")
        vsctl(switch, "add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type=netdev")
        vsctl(switch, "del-br", "br-other")
        await asyncio.sleep(0.3)
        assert told == []
        await killed(datapath, "ovsdb-server")
        assert await pings(a, seconds=10)
        await asyncio.sleep(0.5)
        vsctl(switch, "del-port", names_of("w1")[0])
        assert await pings(a, seconds=5)
        assert set(told) == {"w1"}

    scenario(tmp_path, body)
