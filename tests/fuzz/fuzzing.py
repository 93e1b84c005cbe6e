"""A fuzzer of mutations, without a compiler: ``python tests/fuzz/fuzzing.py MINUTES [TARGET ...]``.

It bends good inputs, and what it found before, in the ways in which parsers break: bits, lengths, copies,
cuts, and pieces of other inputs. An input that a target cannot stand, or that takes it longer than ``SLOW``
seconds, is a finding: it goes to ``corpus/TARGET/`` and stays there as a test.
"""

import asyncio
import hashlib
import logging
import random
import sys
import time
from pathlib import Path

import structlog
from fuzz_targets import targets

CORPUS = Path(__file__).with_name("corpus")
SLOW = 1.0
"""Seconds of the processor: the machine may be busy with something else."""
LONGEST = 64 << 10
"""Bytes of an input."""
_EDGES = (0, 1, 0x7F, 0x80, 0xFF)


def corpus(target):
    """Return the seeds of a target, and the findings of old."""
    folder = CORPUS / target.name
    found = [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
    return [*target.seeds, *found]


def _flip(rng, data):
    place = rng.randrange(len(data))
    data[place] ^= 1 << rng.randrange(8)


def _edge(rng, data):
    data[rng.randrange(len(data))] = rng.choice(_EDGES)


def _number(rng, data):
    place = rng.randrange(len(data))
    size = rng.choice((2, 3, 4))
    value = rng.choice((0, 1, (1 << 8 * size) - 1, 1 << (8 * size - 1), rng.getrandbits(8 * size)))
    data[place : place + size] = value.to_bytes(size, "big")


def _cut(rng, data):
    start = rng.randrange(len(data))
    del data[start : start + rng.randint(1, max(1, len(data) // 4))]


def _copy(rng, data):
    start = rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 64)]
    place = rng.randrange(len(data) + 1)
    data[place:place] = piece * rng.choice((1, 1, 2, 50))


def _noise(rng, data):
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.randint(1, 32))


_CHANGES = (_flip, _flip, _edge, _number, _number, _cut, _copy, _noise)


def mutated(rng, seeds):
    """Return a bent input."""
    if rng.random() < 0.02:
        return rng.randbytes(rng.randint(0, 200))
    data = bytearray(rng.choice(seeds))
    if rng.random() < 0.2:
        other = rng.choice(seeds)
        data[rng.randrange(len(data) + 1) :] = other[rng.randrange(len(other) + 1) :]
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        if data:
            rng.choice(_CHANGES)(rng, data)
    return bytes(data[:LONGEST])


class Finding(Exception):
    """An input that a target cannot stand."""

    def __init__(self, target, data, why):
        super().__init__(f"{target.name}: {why}; input {data[:80].hex()}... of {len(data)} bytes")
        self.target = target
        self.data = data


async def _one(target, data):
    began = time.process_time()
    try:
        done = target.run(data)
        if target.loop:
            await done
    except Exception as error:
        raise Finding(target, data, f"{type(error).__name__}: {error}") from error
    took = time.process_time() - began
    if took > SLOW:
        raise Finding(target, data, f"it took {took:.1f} s")


def run(target, inputs):
    """Give a target inputs; raises Finding. Faults in the background are findings too. Returns how many."""

    async def main():
        count = 0
        troubles = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        for data in inputs:
            await _one(target, data)
            if troubles:
                raise Finding(
                    target, data, f"in the background: {troubles[0].get('exception') or troubles[0]}"
                )
            count += 1
        return count

    return asyncio.run(main())


def mutations(target, seed, *, count=None, seconds=None):
    """Yield bent inputs: so many, or for so long."""
    rng = random.Random(seed)
    seeds = corpus(target)
    until = time.monotonic() + seconds if seconds is not None else None
    number = 0
    while (count is None or number < count) and (until is None or time.monotonic() < until):
        number += 1
        yield mutated(rng, seeds)


def quiet():
    """Keep the log of what is refused out of the way."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def main(minutes, names):
    quiet()
    found = 0
    chosen = [target for name, target in targets().items() if not names or name in names]
    for target in chosen:
        seed = random.randrange(1 << 32)
        try:
            count = run(target, mutations(target, seed, seconds=minutes * 60 / len(chosen)))
        except Finding as finding:
            found += 1
            folder = CORPUS / target.name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / hashlib.sha256(finding.data).hexdigest()[:12]).write_bytes(finding.data)
            sys.stdout.write(f"FOUND {finding}\n")
        else:
            sys.stdout.write(f"{target.name}: {count} inputs, nothing found\n")
        sys.stdout.flush()
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
