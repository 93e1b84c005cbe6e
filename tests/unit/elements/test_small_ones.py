"""ClientInfo, TrimPath and ExcludedPrefixes."""

import os

import pytest

from nsmesh.core.call import Call
from nsmesh.core.element import chain
from nsmesh.core.peering import NEXT_HOP
from nsmesh.core.virtual import run
from nsmesh.elements.client_info import ClientInfo
from nsmesh.elements.excluded_prefixes import ExcludedPrefixes, read_prefixes
from nsmesh.elements.trim_path import TrimPath
from nsmesh.model.messages import (
    Connection,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceRequest,
    Path,
    PathSegment,
)


def request(element, connection, call=None):
    async def main():
        return await chain(element).request(call or Call(), NetworkServiceRequest(connection=connection))

    return run(main())


def test_client_info_adds_what_is_absent_and_known():
    """The client's own word wins; what is not known here is not added."""
    info = ClientInfo({"nodeName": "n2", "podName": "", "clusterName": "c"})
    answer = request(info, Connection(labels={"nodeName": "n1", "app": "x"}))
    assert dict(answer.labels) == {"nodeName": "n1", "app": "x", "clusterName": "c"}


def test_client_info_labels_every_service_of_an_endpoint():
    """Endpoints are labelled per service; network services are left alone."""

    async def main():
        handler = chain(ClientInfo({"nodeName": "n"}))
        entry = NetworkServiceEndpoint(name="e", network_service_names=["a", "b"])
        entry.network_service_labels["b"].labels["nodeName"] = "own"
        stored = await handler.register(Call(), entry)
        assert stored.network_service_labels["a"].labels["nodeName"] == "n"
        assert stored.network_service_labels["b"].labels["nodeName"] == "own"
        assert await handler.register(Call(), NetworkService(name="s")) == NetworkService(name="s")

    run(main())


def path():
    return Connection(path=Path(index=1, path_segments=[PathSegment(name=name) for name in "abcd"]))


def test_the_end_of_a_path_cuts_what_stands_behind_it():
    """A stale tail goes where no next hop was asked, and stays where one was."""
    answer = request(TrimPath(), path())
    assert [segment.name for segment in answer.path.path_segments] == ["a", "b"]
    call = Call()
    call.state.set(NEXT_HOP, chain())
    answer = request(TrimPath(), path(), call)
    assert len(answer.path.path_segments) == 4


def test_excluded_prefixes_are_added_once_and_read_again(tmp_path):
    """A changed file counts at once, a broken one does not, a missing one is empty; contexts are made."""
    file = tmp_path / "excluded_prefixes.yaml"
    element = ExcludedPrefixes(str(file))

    def excluded(*before):
        connection = Connection()
        connection.context.ip_context.excluded_prefixes.extend(before)
        answer = request(element, connection if before else Connection())
        assert answer.context.HasField("ip_context")
        return list(answer.context.ip_context.excluded_prefixes)

    assert excluded() == []
    file.write_text("Prefixes:\n- 10.0.0.0/8\n- 10.0.0.0/8\n- fd00::/8\n")
    assert excluded() == ["10.0.0.0/8", "fd00::/8"]
    assert excluded("fd00::/8", "1.0.0.0/8") == ["fd00::/8", "1.0.0.0/8", "10.0.0.0/8"]
    file.write_text("prefixes: [192.168.0.0/16]\n")
    os.utime(file, ns=(1, 1))
    assert excluded() == ["192.168.0.0/16"]
    file.write_text("prefixes: [nonsense]\n")
    assert excluded() == ["192.168.0.0/16"]
    file.unlink()
    assert excluded() == []


def test_no_file_excludes_nothing():
    """An empty name means that there is none."""
    assert ExcludedPrefixes("").prefixes == ()


@pytest.mark.parametrize("text", ["[1, 2]", "prefixes: x", "prefixes: [1.2.3.4/99]", ": :", "{"])
def test_a_file_that_is_none_is_refused(text):
    """What cannot be understood is a ValueError."""
    with pytest.raises(ValueError, match=r"."):
        read_prefixes(text)


@pytest.mark.parametrize("text", ["", "other: 1", "prefixes:", "prefixes: []"])
def test_an_empty_file_excludes_nothing(text):
    """Nothing said, nothing excluded."""
    assert read_prefixes(text) == ()
