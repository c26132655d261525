"""The plain Deployment of the service: valid objects, the chart renders the same ones, and the options exist."""

from __future__ import annotations

import copy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from augment_service.config import ServeConfig
from tests.support.entrypoints import build_config
from tests.support.kubernetes import BASE, CHART, kustomized, rendered

pytest.importorskip("go_template", reason="the renderer of Go templates exists for Linux on x86-64 only")
validate = pytest.importorskip("kubernetes_validate").validate

OLDEST, NEWEST = "1.27", "1.37"
CHANGES: dict[str, dict[str, Any]] = {
    "another image": {"image": {"repository": "other.example/x", "tag": "1"}, "imagePullSecrets": ["one", "two"]},
    "a hub model": {"mlm": "google-bert/bert-base-uncased", "hubTokenSecret": "hub", "allowHttpsOut": True},
    "no policy": {"networkPolicy": False},
    "options": {"options": ["--max-n-a=50", '--slow-option="a: b" # c'], "threads": 8},
    "numbers": {"resources": {"requests": {"cpu": 2}, "limits": {"memory": "4Gi", "nvidia.com/gpu": 1}}},
    "placement": {"nodeSelector": {"disk": "ssd", "yes": "true"}, "podAnnotations": {"a/b": "c: d"}},
}


def deployment(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = [one for one in objects if one["kind"] == "Deployment"]
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    (found,) = deployment(objects)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_the_api_server_accepts_every_object(version: str) -> None:
    objects = kustomized()
    assert {one["kind"] for one in objects} == {
        "ServiceAccount",
        "Deployment",
        "Service",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    }
    for one in objects:
        validate(one, version, strict=True)


def test_a_misspelt_field_is_found() -> None:
    broken = copy.deepcopy(deployment(kustomized()))
    broken["spec"]["template"]["spec"]["containers"][0]["startupProbes"] = {}
    with pytest.raises(Exception, match="startupProbes"):
        validate(broken, NEWEST, strict=True)


def test_kubectl_reads_the_folder_as_this_test_does() -> None:
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("kubectl is not installed")
    finished = subprocess.run([kubectl, "kustomize", str(BASE)], capture_output=True, text=True, check=True, timeout=60)
    printed = list(yaml.safe_load_all(finished.stdout))
    by_kind = {one["kind"]: one for one in kustomized()}
    assert {one["kind"]: one for one in printed} == by_kind


def test_the_chart_with_its_defaults_renders_the_folder(tmp_path: Path) -> None:
    chart = {one["kind"]: one for one in rendered(tmp_path)}
    assert chart == {one["kind"]: one for one in kustomized()}


@pytest.mark.parametrize("name", CHANGES)
def test_the_chart_with_other_values_is_valid(tmp_path: Path, name: str) -> None:
    objects = rendered(tmp_path, CHANGES[name], release="second")
    for one in objects:
        validate(one, NEWEST, strict=True)
        assert one["metadata"]["name"] == "second"
    found = container(objects)
    pod = deployment(objects)["spec"]["template"]
    policies = [one for one in objects if one["kind"] == "NetworkPolicy"]
    if name == "another image":
        assert found["image"] == "other.example/x:1"
        assert pod["spec"]["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    elif name == "a hub model":
        assert "--mlm=google-bert/bert-base-uncased" in found["args"]
        assert found["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "HF_TOKEN"}
        assert policies[0]["spec"]["egress"][-1] == {"ports": [{"protocol": "TCP", "port": 443}]}
    elif name == "no policy":
        assert policies == []
    elif name == "options":
        assert found["args"][-2:] == CHANGES[name]["options"]
        assert "--threads=8" in found["args"]
    elif name == "numbers":
        assert found["resources"]["requests"] == {"cpu": "2", "memory": "2Gi"}
        assert found["resources"]["limits"] == {"memory": "4Gi", "nvidia.com/gpu": "1"}
    else:
        assert pod["spec"]["nodeSelector"] == CHANGES[name]["nodeSelector"]
        assert pod["metadata"]["annotations"]["a/b"] == "c: d"


def test_every_value_of_the_chart_is_used() -> None:
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    for name, value in values.items():
        inner = (
            [f"{name}.{key}" for key in value] if isinstance(value, dict) and name != "resources" and value else [name]
        )
        for one in inner:
            assert f".Values.{one}" in templates, one


def test_the_service_accepts_the_options_and_is_killed_only_after_it_has_drained() -> None:
    objects = kustomized()
    python, flag, *command = container(objects)["args"]
    assert (python, flag) == ("python", "-m")
    config = build_config(command)
    assert isinstance(config, ServeConfig)
    assert config.token_file is not None
    grace = deployment(objects)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= config.drain_delay + config.drain_seconds + 5


def test_pods_meet_the_restricted_standard_and_can_write_only_where_they_must() -> None:
    pod = deployment(kustomized())["spec"]["template"]["spec"]
    (one,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {mount["mountPath"] for mount in one["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/cache", "/tmp"}
    assert {entry["name"]: entry.get("value") for entry in one["env"]}["AUGMENT_SERVICE_CACHE"] in writable
