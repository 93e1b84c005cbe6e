"""Any order of put, remove, watch, read and reopen equals a plain dictionary with its log."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nsmesh.core.virtual import VirtualLoop
from nsmesh.model.copying import copy_of
from nsmesh.model.messages import NetworkServiceEndpoint
from nsmesh.registry.memory import MemoryStore
from nsmesh.registry.query import ENDPOINT
from nsmesh.registry.sqlite import RegistryFile
from nsmesh.registry.store import Change

NAMES = st.sampled_from(["a", "b", "c"])
SERVICES = st.lists(st.sampled_from(["s", "t"]), max_size=2)
URLS = st.sampled_from(["tcp://h:1", "tcp://h:2"])
TEMPLATES = st.builds(
    NetworkServiceEndpoint,
    name=st.sampled_from(["", "", "a", "b"]),
    network_service_names=SERVICES,
    url=st.sampled_from(["", "", ":1"]),
)


class StoreMachine(RuleBasedStateMachine):
    """A store against its model; each watcher against the log of what it has to see."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualLoop)
        self.model: dict[str, NetworkServiceEndpoint] = {}
        self.watches: list[tuple[object, NetworkServiceEndpoint, list[Change]]] = []
        self.fresh: set[object] = set()
        self.begin()

    def begin(self) -> None:
        self.store = MemoryStore(ENDPOINT)

    def expect(self, change: Change) -> None:
        for _, template, expected in self.watches:
            if ENDPOINT.matches(template, change.entry):
                expected.append(change)

    @rule(name=NAMES, services=SERVICES, url=URLS)
    def put(self, name, services, url):
        entry = NetworkServiceEndpoint(name=name, network_service_names=services, url=url)
        self.model[name] = copy_of(entry)
        assert self.runner.run(self.store.put(entry)) == entry
        self.expect(Change(self.model[name]))

    @rule(name=NAMES)
    def remove(self, name):
        old = self.model.pop(name, None)
        assert self.runner.run(self.store.remove(name)) is (old is not None)
        if old is not None:
            self.expect(Change(old, deleted=True))

    @precondition(lambda self: len(self.watches) < 4)
    @rule(template=TEMPLATES)
    def watch(self, template):
        present = [Change(e) for e in self.model.values() if ENDPOINT.matches(template, e)]
        watch = self.store.watch(template)
        self.fresh.add(watch)
        self.watches.append((watch, template, present))

    @precondition(lambda self: self.watches)
    @rule(data=st.data())
    def read(self, data):
        index = data.draw(st.integers(0, len(self.watches) - 1))
        watch, _, expected = self.watches[index]
        if watch in self.fresh:  # what it begins with comes in any order, so it is read to its end
            self.drain(index, len(expected))
            self.fresh.discard(watch)
        else:
            self.drain(index, data.draw(st.integers(0, len(expected))))

    def drain(self, index: int, count: int) -> None:
        watch, _, expected = self.watches[index]

        async def some() -> list[Change]:
            async with asyncio.timeout(1):
                return [await anext(watch) for _ in range(count)]

        seen = self.runner.run(some())
        _same(seen, expected[:count])
        del expected[:count]

    @precondition(lambda self: self.watches)
    @rule(data=st.data())
    def close(self, data):
        watch, _, _ = self.watches.pop(data.draw(st.integers(0, len(self.watches) - 1)))
        watch.close()

    @rule(template=TEMPLATES)
    def look(self, template):
        listed = self.runner.run(self.store.list(template))
        expected = [e for e in self.model.values() if ENDPOINT.matches(template, e)]
        assert sorted(e.name for e in listed) == sorted(e.name for e in expected)

    @invariant()
    def equal(self):
        assert len(self.store) == len(self.model)
        assert self.store.watchers == len(self.watches)
        for name, entry in self.model.items():
            assert self.runner.run(self.store.get(name)) == entry

    def teardown(self) -> None:
        for index, (_, _, expected) in enumerate(self.watches):
            self.drain(index, len(expected))
        self.runner.close()


def _same(seen: list[Change], expected: list[Change]) -> None:
    """Compare the order of the changes of each name; what a watch begins with comes in any order."""
    for name in {change.entry.name for change in [*seen, *expected]}:
        assert [c for c in seen if c.entry.name == name] == [c for c in expected if c.entry.name == name]


class FileMachine(StoreMachine):
    """The same over a file, which may be closed and opened again at any time."""

    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "registry.db"
        self.open()

    def open(self) -> None:
        self.file = RegistryFile(self.path)
        self.store = self.file.endpoints

    @rule()
    def reopen(self):
        self.file.close()
        self.watches.clear()
        self.open()

    def teardown(self) -> None:
        super().teardown()
        self.file.close()
        self.folder.cleanup()


CALM = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMemoryStore = StoreMachine.TestCase
TestMemoryStore.settings = CALM
TestSqliteStore = FileMachine.TestCase
TestSqliteStore.settings = settings(CALM, max_examples=30)
