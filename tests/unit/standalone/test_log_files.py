"""Logs that are full begin anew; who writes them and who follows them does not notice."""

import asyncio
import contextlib
import random

from nsmesh.cli.log_follow import Followed
from nsmesh.cli.logs import _end
from nsmesh.standalone.log_files import earlier, keep_small, put_aside


def test_a_full_log_is_put_aside_and_its_writer_goes_on(tmp_path):
    """What was said is in the earlier file, what is said next in the log; the one before that is gone."""
    path = tmp_path / "daemon.log"
    with path.open("ab", buffering=0) as out:
        for text in (b"first\n", b"second\n", b"third\n"):
            out.write(text)
            if text != b"third\n":
                put_aside(path)
    assert path.read_bytes() == b"third\n"
    assert earlier(path).read_bytes() == b"second\n"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1"]
    assert _end(path) == b"second\nthird\n"


def test_only_large_logs_are_put_aside(tmp_path):
    """Each log of a folder is bounded; small ones, and other files, are left alone."""
    for name, size in (("a.log", 2000), ("b.log", 1000), ("other", 5000)):
        (tmp_path / name).write_bytes(b"x" * size)

    async def main():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(keep_small(tmp_path, 1000, 0.01), 0.1)

    asyncio.run(main())
    sizes = {one.name: one.stat().st_size for one in tmp_path.iterdir()}
    assert sizes == {"a.log": 0, "a.log.1": 2000, "b.log": 1000, "other": 5000}


def test_following_goes_on_over_a_rotation(tmp_path):
    """However writes, looks and rotations fall, each line is read once and in order."""
    rng = random.Random(3)
    path = tmp_path / "x.log"
    path.write_text("before\n")
    followed = Followed(path, path.stat().st_size)
    written, read, half, looked = [], [], b"", True
    with path.open("ab", buffering=0) as out:
        for number in range(2000):
            match rng.randrange(6):
                case 0:
                    read += followed.lines()
                    looked = True
                case 1 if looked and not half:  # two rotations between two looks lose what went first
                    put_aside(path)
                    looked = False
                case 2 if not half:
                    half = b"%d half" % number
                    out.write(half)
                case _:
                    line = half + b" %d\n" % number
                    out.write(line.removeprefix(half))
                    written.append(line[:-1].decode())
                    half = b""
    read += followed.lines()
    assert read == written
