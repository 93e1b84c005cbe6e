"""Turns: so many at a time, whoever takes them, and none is lost with who had it."""

import asyncio
import subprocess
import sys

from nsmesh.chaos.turns import PAUSE, Turns


def test_so_many_have_a_turn_at_a_time(tmp_path):
    """Of seven, in three that know nothing of each other, two are at it, and all come to be."""
    Turns.make(tmp_path, 2)
    now, most, done = 0, 0, 0

    async def one(turns):
        nonlocal now, most, done
        async with turns.taken():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.03)
            now -= 1
            done += 1

    async def main():
        several = [Turns(tmp_path) for _ in range(3)]
        await asyncio.gather(*(one(several[number % 3]) for number in range(7)))

    asyncio.run(main())
    assert (most, done) == (2, 7)


def test_a_turn_ends_with_its_process(tmp_path):
    """One that was killed holds nobody up."""
    Turns.make(tmp_path, 1)
    text = "import asyncio,sys,pathlib;from nsmesh.chaos.turns import Turns\nasync def main():\n async with "
    text += "Turns(pathlib.Path(sys.argv[1])).taken():\n  print(flush=True)\n  await asyncio.sleep(60)\n"
    command = [sys.executable, "-c", f"{text}asyncio.run(main())", str(tmp_path)]

    async def main(process):
        waiting = asyncio.ensure_future(one())
        await asyncio.sleep(5 * PAUSE)
        assert not waiting.done()
        process.kill()
        await asyncio.wait_for(waiting, 30)

    async def one():
        async with Turns(tmp_path).taken():
            pass

    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        asyncio.run(main(process))


def test_without_a_folder_nobody_waits():
    """Then there is one mesh alone."""

    async def main():
        async with Turns().taken(), Turns().taken():
            pass

    asyncio.run(main())
