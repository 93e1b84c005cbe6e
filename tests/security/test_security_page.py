"""The page on security says what the code does."""

import dataclasses
import re
from pathlib import Path

from nsmesh import rpc
from nsmesh.elements.serve import LARGEST
from nsmesh.model.messages import NetworkService, NetworkServiceRequest
from nsmesh.rpc import descriptors, telling
from nsmesh.security import jws, policy

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def test_every_limit_is_listed_with_its_value():
    """The table of limits is that of ``rpc.Limits``, in its order."""
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", PAGE, re.MULTILINE)
    assert rows == [(field.name, str(field.default)) for field in dataclasses.fields(rpc.Limits)]


def test_every_policy_of_a_role_is_listed():
    """Each rule that a refusal can name stands on the page."""
    selected = policy.select([*policy.REGISTRY_SERVER_POLICIES, *policy.CLIENT_POLICIES, policy.OWN_NAME])
    for one in selected:
        assert f"`{one.__name__}`" in PAGE


def test_other_bounds_are_as_told():
    """Sizes and counts in the text are those of the code."""
    assert (LARGEST[NetworkServiceRequest], LARGEST[NetworkService]) == (256 << 10, 1 << 20)
    assert (jws.MAX_TOKEN, policy.MAX_SEGMENTS) == (16 << 10, 1024)
    assert (descriptors.LARGEST, descriptors.LIFETIME) == (4096, 60)
    assert (telling.LINES, telling.WINDOW) == (20, 5)
