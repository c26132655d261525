"""Deployment files of the service: Serve's configuration, the KubeRay manifest, and the dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.service.batcher import PassBatcher
from augment_service.service.cache import ByteLru
from augment_service.service.deployments import build
from augment_service.service.metrics import PassMetrics, ServiceMetrics, WordMetrics
from augment_service.service.neighbours import NeighbourBatcher
from tests.unit.deploy.test_grafana import SCHEMA
from tests.unit.deploy.test_kuberay import closed, faults, validators

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
__all__ = ["closed", "validators"]


def configurations() -> list[dict[str, Any]]:
    manifest = yaml.safe_load((DEPLOY / "serve" / "rayservice.yaml").read_text(encoding="utf-8"))
    plain = yaml.safe_load((DEPLOY / "serve" / "serve.yaml").read_text(encoding="utf-8"))
    return [plain, yaml.safe_load(manifest["spec"]["serveConfigV2"])]


@pytest.mark.parametrize("config", configurations(), ids=["serve.yaml", "rayservice.yaml"])
def test_serve_accepts_the_configuration_and_its_deployments_exist(config: dict[str, Any]) -> None:
    application = ServeDeploySchema.model_validate(config).applications[0]
    assert application.import_path == f"{build.__module__}:build"
    built = build(dict(application.args))
    asked = {one.name for one in application.deployments}
    masked_lm, glove = built._bound_deployment.init_args[1:]
    names = {one._bound_deployment.name for one in (built, masked_lm, glove)}
    assert asked == names == {"Ingress", "MaskedLM", "Glove"}


@pytest.mark.golden
def test_the_operator_accepts_the_manifest(validators: dict[str, jsonschema.Draft202012Validator]) -> None:
    manifest = yaml.safe_load((DEPLOY / "serve" / "rayservice.yaml").read_text(encoding="utf-8"))
    assert faults(manifest, validators) == []
    manifest["spec"]["serveConfigVO"] = manifest["spec"].pop("serveConfigV2")
    assert any("serveConfigVO" in one for one in faults(manifest, validators))


def test_the_workers_of_the_manifest_have_room_for_all_replicas() -> None:
    manifest = yaml.safe_load((DEPLOY / "serve" / "rayservice.yaml").read_text(encoding="utf-8"))
    cluster = manifest["spec"]["rayClusterConfig"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert "automountServiceAccountToken" not in cluster["headGroupSpec"]["template"]["spec"]
    (workers,) = cluster["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    free = [float(container["resources"]["requests"]["cpu"])] * workers["maxReplicas"]
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    asked = []
    for one in application["deployments"]:
        count = one.get("num_replicas") or one["autoscaling_config"]["max_replicas"]
        asked += [one["ray_actor_options"]["num_cpus"]] * count
    # Largest first, each to the first worker with room.
    for size in sorted(asked, reverse=True):
        worker = next(index for index, room in enumerate(free) if room >= size)
        free[worker] -= size


def test_the_dashboard_shows_exactly_the_metrics_of_the_service() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "service.json").read_text(encoding="utf-8"))
    jsonschema.validate(dashboard, SCHEMA)
    metrics = ServiceMetrics()
    metrics.watch_cache(ByteLru(0))
    metrics.watch_memory(lambda: 0)
    PassMetrics(metrics.registry).watch(PassBatcher(masked_lm=cast(MaskedLM, None), batch_tokens=1))
    WordMetrics(metrics.registry).watch(NeighbourBatcher(vectors=cast(GloveVectors, None)))
    metrics.show_models({})
    names = metrics.registry._names_to_collectors
    known = {name.removesuffix("_created") for name in names if name.startswith("augment_service_")}
    asked = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"augment_service_\w+", target["expr"])
    }
    assert asked - known == set()
    stems = {re.sub(r"_(bucket|sum|count|total|info)$", "", name) for name in known}
    assert stems - {re.sub(r"_(bucket|sum|count|total|info)$", "", name) for name in asked} == set()
