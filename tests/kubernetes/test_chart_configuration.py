"""What ConfigMaps of the chart say to the roles: policies of users, and the level of logs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_lab import LAB, PROJECT
from kubernetes_webhook import env_of

from nsmesh.core.errors import Invalid
from nsmesh.security.policy import select

pytest.importorskip("regopy")
MINE = "package mine\n\ndefault valid := false\n"
OPTIONS = ("nodeAgent.enabled=true", "admissionWebhook.enabled=true", "nsmgr.findPrefixes=true")


def rendered(*words: str, check: bool = True) -> tuple[list[dict[str, Any]], str]:
    """Return what the chart makes with options, and what helm complains about."""
    program = LAB / "bin/helm"
    if not program.exists():
        pytest.skip(f"helm is not built: no {program}")
    command = [program, "template", "nsmesh", PROJECT / "deploy/helm", "-n", "nsm-system", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=check)
    return [item for item in yaml.safe_load_all(done.stdout) if item], done.stderr


def named(items: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    """Return the one object of a kind and name."""
    (found,) = [item for item in items if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return found


def containers(item: dict[str, Any]) -> list[dict[str, Any]]:
    """Return all containers of a workload."""
    spec = item["spec"]["template"]["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def mounted(items: list[dict[str, Any]], workload: dict[str, Any], container: dict, volume: str) -> dict:
    """Return the data of the ConfigMap that a container mounts as a volume, and where it does."""
    spec = workload["spec"]["template"]["spec"]
    (source,) = [one["configMap"]["name"] for one in spec["volumes"] if one["name"] == volume]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == volume]
    assert mount["readOnly"]
    data = named(items, "ConfigMap", source)["data"]
    return {f"{mount['mountPath']}/{name}": text for name, text in data.items()}


def test_each_role_reads_the_level_of_its_logs():
    """Whatever is told a level finds the file of the ConfigMap as well, with the same word at first."""
    items, _ = rendered("--set=logLevel=WARN", *(f"--set={one}" for one in OPTIONS))
    found = 0
    for workload in items:
        if workload["kind"] not in {"Deployment", "DaemonSet"}:
            continue
        for container in containers(workload):
            env = env_of(container)
            if "NSM_LOG_LEVEL" not in env:
                continue
            files = mounted(items, workload, container, "logging")
            assert files[env["NSM_LOG_LEVEL_FILE"]] == env["NSM_LOG_LEVEL"] == "WARN"
            found += 1
    assert found == 8


@pytest.mark.parametrize(
    ("which", "roles", "variable"),
    [
        ("connections", {"nsmgr", "forwarder"}, "NSM_CONNECTION_POLICIES"),
        ("registrations", {"registry"}, "NSM_REGISTRY_SERVER_POLICIES"),
    ],
)
def test_policies_of_users_are_mounted_and_asked(tmp_path, which, roles, variable):
    """Where they belong, beside the built-in ones, and nowhere else; another text makes other pods."""
    file = tmp_path / "mine.rego"
    file.write_text(MINE)
    before, _ = rendered()
    options = f"--set-file=policies.{which}.mine\\.rego={file}"
    items, _ = rendered(options)
    file.write_text(MINE + "# more\n")
    after, _ = rendered(options)
    for workload in items:
        if workload["kind"] not in {"Deployment", "DaemonSet"}:
            continue
        kind, name = workload["kind"], workload["metadata"]["name"]
        if name not in roles:
            assert workload == named(before, kind, name) == named(after, kind, name)
            continue
        assert workload["spec"]["template"] != named(after, kind, name)["spec"]["template"]
        (container,) = containers(workload)
        files = mounted(items, workload, container, "policies")
        assert list(files) == ["/etc/nsm/policies/mine.rego"]
        masks = env_of(container)[variable]
        built_in = select(tuple(m for m in masks.split(",") if m.startswith("etc/nsm/opa")))
        asked = select(tuple(moved(tmp_path / name, files, masks).split(",")))
        assert len(asked) == len(built_in) + 1
        assert {one.__name__ for one in built_in} < {one.__name__ for one in asked}


def moved(folder: Path, files: dict[str, str], masks: str) -> str:
    """Lay files out as a kubelet does, below a folder; return the masks as they are there."""
    for name, text in files.items():
        path = folder / name.lstrip("/")
        version = path.parent / "..2026"
        version.mkdir(parents=True)
        (version / path.name).write_text(text)
        (path.parent / "..data").symlink_to(version.name)
        path.symlink_to(f"..data/{path.name}")
    return masks.replace("/etc/nsm/policies", f"{folder}/etc/nsm/policies")


def test_a_policy_that_is_none_is_refused(tmp_path):
    """By the chart for a name that no role would look for, by the role for what is wrong inside."""
    _, told = rendered("--set=policies.connections.mine=x", check=False)
    assert "'mine' does not match pattern" in told
    (tmp_path / "x.rego").write_text("package mine\n\nvalid := \n")
    with pytest.raises(Invalid, match=r"x\.rego"):
        select((f"{tmp_path}/.*[.]rego",))


def test_the_api_server_takes_them(webhook_server, tmp_path):
    """ConfigMaps and workloads with policies are valid objects."""
    (tmp_path / "mine.rego").write_text(MINE)
    options = [
        f"--set-file=policies.{one}.mine\\.rego={tmp_path}/mine.rego"
        for one in ("connections", "registrations")
    ]
    items, _ = rendered(*options)
    for item in items:
        item["metadata"].pop("namespace", None)
    kinds = {"ConfigMap", "Deployment", "DaemonSet"}
    ours = [item for item in items if item["kind"] in kinds and "hook" not in json.dumps(item["metadata"])]
    text = webhook_server.kubectl(
        *("create", "--dry-run=server", "-f", "-"),
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": ours}),
    )
    assert text.count("created") == len(ours) >= 8, text
