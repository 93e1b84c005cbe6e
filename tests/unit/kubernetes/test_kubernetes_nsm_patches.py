"""Our patches beside those that NSM's webhook in Go gave to the same reviews; each difference is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nsmesh.chains.settings_kubernetes import AdmissionWebhookSettings
from nsmesh.chains.webhook_plan import Plan
from nsmesh.kubernetes.patches import patch
from nsmesh.model.settings import load

TOLD = json.loads((Path(__file__).parents[2] / "data/nsm-webhook-patches.json").read_text())
"""Recorded of a build of April 2026, with null and unique endings left out: settings, namespaces, reviews."""
UNIQUE = re.compile(r"-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
OURS = {"cmd-nsc", "cmd-nsc-init"}
MODE = {"NSM_WEBHOOK_MODE": "selfregister", "NSM_SILENT": "true"}
INJECTION = Plan.of(load(AdmissionWebhookSettings, {**TOLD["settings"], **MODE})).injection


def leaves(value, path=""):
    """Return every value by its path; items of lists by their names."""
    if isinstance(value, dict):
        return {key: leaf for name in value for key, leaf in leaves(value[name], f"{path}.{name}").items()}
    if isinstance(value, list):
        found = {f"{path}#order": [one.get("name") for one in value if isinstance(one, dict)]}
        for number, one in enumerate(value):
            name = one.get("name", number) if isinstance(one, dict) else number
            found |= leaves(one, f"{path}[{name}]")
        return found
    return {path: UNIQUE.sub("-UUID", value) if isinstance(value, str) else value}


def named(path: str, theirs, ours, request) -> bool:
    """Say whether docs/decisions/0045 names a difference."""
    if path.endswith(".hostPath.type"):
        return (theirs, ours) == ("Directory", "DirectoryOrCreate")
    if path.endswith(("runAsNonRoot", "runAsUser", "seccompProfile.type")):
        return theirs is None and request["namespace"] == "strict"
    if path.endswith("initContainers#order"):
        return sorted(theirs) == sorted(ours) and ours[0] in OURS
    if path.endswith("[NSM_NAME].value"):  # names of these pods are generated, so they are unique already
        return ours == "$(POD_NAME)" and request["kind"]["kind"] in {"Deployment", "DaemonSet", "ReplicaSet"}
    return False


@pytest.mark.parametrize("told", TOLD["reviews"], ids=[one["case"] for one in TOLD["reviews"]])
def test_a_patch_is_that_of_nsm(told):
    """The same paths with the same values, but for what was decided otherwise."""
    request = told["request"]
    namespace = {"metadata": TOLD["namespaces"][request["namespace"]]}
    ours = {item["path"]: item["value"] for item in patch(request, INJECTION, namespace)}
    theirs = {item["path"]: item["value"] for item in told["patch"]}
    assert ours.keys() == theirs.keys()
    here, there = leaves(ours), leaves(theirs)
    differ = {path for path in here.keys() | there.keys() if here.get(path) != there.get(path)}
    assert not [path for path in differ if not named(path, there.get(path), here.get(path), request)]


def test_there_is_something_to_compare():
    """Half of the reviews were answered with a patch, of every kind."""
    patched = [one["request"]["kind"]["kind"] for one in TOLD["reviews"] if one["patch"]]
    assert set(patched) == {"Pod", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"}
    assert len(patched) * 2 > len(TOLD["reviews"])
