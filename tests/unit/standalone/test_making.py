"""The order in which documents are made, and what becomes of those that fail."""

import asyncio
from types import SimpleNamespace

import pytest

from nsmesh.core.errors import NotFound
from nsmesh.model.manifest import load
from nsmesh.standalone.making import Maker
from nsmesh.standalone.making_run import NotWired

TEXT = """
apiVersion: nsmesh/v1
kind: Workload
metadata: {name: client, annotations: {networkservicemesh.io: kernel://ping/nsm-1}}
spec: {}
---
apiVersion: nsmesh/v1
kind: Endpoint
metadata: {name: responder}
spec: {type: icmp-responder, services: [ping]}
---
apiVersion: nsmesh/v1
kind: Link
metadata: {name: uplink}
spec: {ends: [{of: site, interface: eth0}, {of: responder, interface: eth0}]}
---
apiVersion: nsmesh/v1
kind: Workload
metadata: {name: site}
spec: {command: [sleep, "60"]}
"""


class Recorder(Maker):
    """Notes what would be made, in order; fails where it is told to."""

    def __init__(self, **errors):
        self.done = []
        self.errors = errors
        super().__init__(SimpleNamespace(spaces=SimpleNamespace(make=self._space)), None)

    def _do(self, what, name):
        self.done.append(f"{what} {name}")
        if error := self.errors.get(f"{what}_{name}"):
            raise error

    async def _space(self, owner, *_place):
        self._do("space", owner)

    async def _link(self, link, _run):
        self._do("link", link.name)

    async def _workload(self, workload, _run):
        self._do("workload", workload.name)

    async def _endpoint(self, endpoint, _run):
        self._do("endpoint", endpoint.name)

    async def _imply(self, endpoint, made):
        self._do("services of", endpoint.name)
        made += endpoint.services

    async def _drop_unused(self, services):
        self.done.append(f"unused of {services}")

    async def unmake(self, kind, name):
        self._do("no", f"{kind}_{name}")


def make(maker):
    return asyncio.run(maker.make(load(TEXT, "test"), lambda _event: None, wait=True))


def test_each_comes_after_what_it_needs():
    """Namespaces, links, who serves without wires, services, endpoints, at last those who ask for wires."""
    maker = Recorder()
    assert make(maker) == []
    assert maker.done == [
        *("space client", "space responder", "space site"),
        "link uplink",
        "workload site",
        *("services of responder", "endpoint responder", "unused of ['ping']"),
        "workload client",
    ]


@pytest.mark.parametrize("step", ["space", "endpoint"])
def test_what_fails_is_taken_away_and_the_others_go_on(step):
    """A failure names its document and its error; nothing more is made of it, and of the rest everything."""
    error = NotFound("there is none")
    maker = Recorder(**{f"{step}_responder": error})
    (failure,) = make(maker)
    assert (failure.item.name, failure.error, failure.stays) == ("responder", error, False)
    after = maker.done[maker.done.index(f"{step} responder") + 1 :]
    assert "no endpoint_responder" in after
    assert not [line for line in after if line.endswith(" responder")]
    assert after[-1] == "workload client"


def test_a_workload_without_its_wires_stays():
    """It is told as a failure, but it is worked on: nothing of it is taken away."""
    maker = Recorder(workload_client=NotWired("no wire yet"))
    (failure,) = make(maker)
    assert failure.stays
    assert maker.done[-1] == "workload client"


def test_a_failed_undo_is_told_with_the_failure():
    """The user hears of both."""
    maker = Recorder(link_uplink=NotFound("there is none"), no_link_uplink=NotFound("nor that"))
    (failure,) = make(maker)
    assert failure.error.__notes__ == ["and undoing it failed: nor that"]
    assert maker.done[-1] == "workload client"


def test_a_mistake_of_ours_is_no_failure_of_a_document():
    """It is undone as well, and raised."""
    maker = Recorder(workload_site=ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        make(maker)
    assert maker.done[-1] == "no workload_site"
