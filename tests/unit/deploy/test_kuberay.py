"""The KubeRay manifests validated against the operator's schemas, closed so that misspelt fields are found."""

from __future__ import annotations

import copy
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.entrypoints import build_config, commands_in

MANIFESTS = Path(__file__).resolve().parents[3] / "deploy" / "kuberay"
NAMES = ("raycluster.yaml", "rayjob-augment.yaml", "rayjob-train.yaml", "rayjob-distill.yaml")
JOBS = tuple(name for name in NAMES if name.startswith("rayjob"))


def load(name: str) -> dict[str, Any]:
    manifest: dict[str, Any] = yaml.safe_load((MANIFESTS / name).read_text(encoding="utf-8"))
    return manifest


def closed(schema: Any) -> Any:
    """The schema with `additionalProperties: false` in every object that lists its properties and allows no others."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(value) for name, value in schema.items()}
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        result["additionalProperties"] = False
    return result


@pytest.fixture(scope="module")
def validators(kuberay_dir: Path) -> dict[str, jsonschema.Draft202012Validator]:
    found = {}
    for kind in ("RayCluster", "RayJob", "RayService"):
        text = lzma.decompress((kuberay_dir / f"ray.io_{kind.lower()}s.yaml.xz").read_bytes())
        versions = {one["name"]: one for one in yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]}
        schema = closed(versions["v1"]["schema"]["openAPIV3Schema"])
        # The API server validates metadata; the schema only says that it is an object.
        schema["properties"]["metadata"] = {"type": "object"}
        found[kind] = jsonschema.Draft202012Validator(schema)
    return found


def faults(manifest: dict[str, Any], validators: dict[str, jsonschema.Draft202012Validator]) -> list[str]:
    return [f"{one.json_path}: {one.message}" for one in validators[manifest["kind"]].iter_errors(manifest)]


@pytest.mark.golden
@pytest.mark.parametrize("name", NAMES)
def test_the_operator_accepts_the_manifests(name: str, validators: dict[str, jsonschema.Draft202012Validator]) -> None:
    assert faults(load(name), validators) == []


@pytest.mark.golden
@pytest.mark.parametrize(
    ("path", "message"),
    [
        (("spec", "shutdownAfterJobFinish"), "shutdownAfterJobFinish"),
        (("spec", "rayClusterSpec", "authOption"), "authOption"),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "maxReplica"), "maxReplica"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "container"), "container"),
        (("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "enviroment"), "enviroment"),
    ],
)
def test_a_misspelt_field_is_found(
    path: tuple[Any, ...], message: str, validators: dict[str, jsonschema.Draft202012Validator]
) -> None:
    manifest = copy.deepcopy(load("rayjob-augment.yaml"))
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "x"
    assert any(message in fault for fault in faults(manifest, validators))


@pytest.mark.parametrize("name", JOBS)
def test_entrypoints_are_valid_commands(name: str) -> None:
    entrypoint = load(name)["spec"]["entrypoint"]
    commands = commands_in(entrypoint)
    assert len(commands) == entrypoint.count("python -m") > 0
    for command in commands:
        build_config(command)


def test_an_unknown_option_is_found() -> None:
    (command,) = commands_in("cd /data && python -m augment_service run --task SST-2 --input a.tsv --outptu b")
    with pytest.raises(AssertionError, match="--outptu"):
        build_config(command)


@pytest.mark.parametrize("name", JOBS)
def test_runtime_environments_are_yaml_with_text_values(name: str) -> None:
    environment = yaml.safe_load(load(name)["spec"]["runtimeEnvYAML"])
    assert all(isinstance(value, str) for value in environment["env_vars"].values())


@pytest.mark.parametrize("name", NAMES)
def test_the_head_has_no_resources_and_the_gpu_workers_scale(name: str) -> None:
    spec = load(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    gpu = next(group for group in cluster["workerGroupSpecs"] if group["groupName"] == "gpu")
    assert gpu["minReplicas"] <= gpu["replicas"] <= gpu["maxReplicas"]
    limits = gpu["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    if name != "rayjob-train.yaml":
        assert cluster["enableInTreeAutoscaling"] is True
        assert gpu["maxReplicas"] > 1


@pytest.mark.parametrize("name", NAMES)
def test_pods_contain_no_secret_and_run_without_root(name: str) -> None:
    spec = load(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token", "secretName": "augment-ray-token"}
    claim = yaml.safe_load((MANIFESTS / "storage.yaml").read_text(encoding="utf-8"))["metadata"]["name"]
    for pod in pods_of(cluster):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert claim in {one.get("persistentVolumeClaim", {}).get("claimName") for one in pod["volumes"]}
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert {one["secretRef"]["name"] for one in container["envFrom"]} == {"augment-s3"}
            for variable in container["env"]:
                assert not any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))


def pods_of(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]
