"""The dashboard of the job: it queries only metrics that the job exports, with the labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from augment_service.job.metrics import JOB_METRICS, Metric

GRAFANA = Path(__file__).resolve().parents[3] / "deploy" / "grafana"
RAY_METRICS = {"ray_node_gpus_utilization": {"instance", "GpuIndex"}}
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
# What Grafana requires of a dashboard file to load and display it.
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos", "targets", "datasource"],
                "properties": {
                    "type": {"enum": ["stat", "timeseries"]},
                    "title": {"type": "string", "minLength": 1},
                    "gridPos": {
                        "type": "object",
                        "required": ["x", "y", "w", "h"],
                        "properties": {
                            "x": {"type": "integer", "minimum": 0, "maximum": 23},
                            "w": {"type": "integer", "minimum": 1, "maximum": 24},
                            "h": {"type": "integer", "minimum": 1},
                        },
                    },
                    "targets": {
                        "type": "array",
                        "minItems": 1,
                        "items": {
                            "type": "object",
                            "required": ["refId", "expr"],
                            "properties": {"expr": {"type": "string", "minLength": 1}},
                        },
                    },
                },
            },
        },
    },
}


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GRAFANA / "augment.json").read_text(encoding="utf-8"))
    return loaded


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def exported(metric: Metric) -> set[str]:
    return {f"ray_{metric.name}{suffix}" for suffix in SUFFIXES[metric.kind]}


def test_the_file_is_a_dashboard_without_overlapping_panels() -> None:
    jsonschema.validate(dashboard(), SCHEMA)
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_queried_metric_exists() -> None:
    known = set(RAY_METRICS).union(*(exported(metric) for metric in JOB_METRICS))
    asked = {name for one in expressions() for name in re.findall(r"\bray_[a-z0-9_]+", one)}
    assert asked - known == set()


def test_every_metric_is_shown() -> None:
    asked = " ".join(expressions())
    missing = [metric.name for metric in JOB_METRICS if not any(name in asked for name in exported(metric))]
    assert missing == []


def test_every_queried_label_exists() -> None:
    labels = {name: set(metric.labels) for metric in JOB_METRICS for name in exported(metric)} | RAY_METRICS
    for one in expressions():
        used = set(re.findall(r"(\w+)\s*=~?\s*\"", one))
        used |= {name.strip() for group in re.findall(r"\bby \(([^)]*)\)", one) for name in group.split(",")}
        allowed = set().union(*(labels[name] for name in re.findall(r"\bray_[a-z0-9_]+", one))) | {"le"}
        assert used <= allowed, one


def test_counters_are_read_as_rates_and_gauges_are_not() -> None:
    kinds = {name: metric.kind for metric in JOB_METRICS for name in exported(metric)}
    for one in expressions():
        for function, name in re.findall(r"\b(rate|increase)\((ray_[a-z0-9_]+)", one):
            assert kinds[name] in ("counter", "histogram"), (function, name)


def test_scrape_and_provisioning_files_are_consistent() -> None:
    scrape = yaml.safe_load((GRAFANA / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"][0]
    assert scrape["honor_labels"] is True
    rename = scrape["metric_relabel_configs"][0]
    assert re.fullmatch(rename["regex"], "ray_augment_service_ready")
    assert not re.fullmatch(rename["regex"], "ray_augment_rows_total")
    assert scrape["file_sd_configs"][0]["files"] == ["/tmp/ray/prom_metrics_service_discovery.json"]
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text(encoding="utf-8"))
    assert sources["datasources"][0]["type"] == dashboard()["templating"]["list"][0]["query"]
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/tinybert.yaml").read_text(encoding="utf-8"))
    assert providers["providers"][0]["type"] == "file"
