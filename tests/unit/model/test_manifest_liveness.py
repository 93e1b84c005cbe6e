"""spec.liveness of a Workload: read, written back, and refused where it makes no sense."""

import pytest

from nsmesh.model.manifest import LivenessCheck, ManifestErrors, dump, load

TEXT = """
apiVersion: nsmesh/v1
kind: Workload
metadata: {name: client, annotations: {networkservicemesh.io: kernel://echo}}
spec: {liveness: %s}
"""


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("{interval: 50ms, timeout: 300ms, count: 3}", LivenessCheck(0.05, 0.3, 3)),
        ("{count: 2}", LivenessCheck(0.2, 1.0, 2)),
        ("{}", LivenessCheck()),
        ("null", None),
    ],
)
def test_what_is_written_is_read(text, check):
    """What is left out has the usual values; nothing at all means that nobody looks."""
    (found,) = load(TEXT % text, "m.yaml")
    assert found.liveness == check
    assert load(str(dump(found)).replace("'", '"'), "again.json") == [found]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{interval: often}", r"spec.liveness.interval: .*'often'.*write interval: 200ms"),
        ("{interval: 1ms}", "must be from 10ms to 1h0m0s, not 1ms"),
        ("{timeout: 2h}", "must be from 10ms to 1h0m0s, not 2h"),
        ("{timeout: -1s}", "must be from 10ms to 1h0m0s, not -1s"),
        ("{count: 0}", "must be a whole number from 1 to 100"),
        ("{counts: 1}", "did you mean 'count'"),
        ("often", "must be a mapping"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(text, told):
    """File, line, field, what is wrong, what to write."""
    with pytest.raises(ManifestErrors, match=f"(?s)m.yaml:5.*{told}"):
        load(TEXT % text, "m.yaml")
