"""A brief run of every fuzzer, and what longer ones have found (``make fuzz MINUTES=n``)."""

import logging

import pytest
import structlog
from fuzz_targets import targets
from fuzzing import CORPUS, corpus, mutations, run

TARGETS = targets()
BRIEF = 0.5
"""Seconds that each is bent for."""


@pytest.fixture(autouse=True)
def quiet():
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_and_old_findings_are_stood(name):
    """Seeds and everything that was ever found: accepted or refused, and never more than that."""
    target = TARGETS[name]
    assert run(target, corpus(target)) >= 1


@pytest.mark.parametrize("name", TARGETS)
def test_bent_inputs_are_stood(name):
    """The same inputs each time, as many as there is time for."""
    target = TARGETS[name]
    assert run(target, mutations(target, 20, seconds=BRIEF)) > 10


def test_every_folder_of_the_corpus_has_a_target():
    """No finding is forgotten because its target changed its name."""
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} <= set(TARGETS)
