"""Kubernetes objects of our kustomize folder and of our Helm chart, and what the API server would say of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "tinybert-augment"
_RENDER = "import sys; from go_template import render_template; render_template(*sys.argv[1:])"


def kustomized() -> list[dict[str, Any]]:
    """Objects of deploy/kubernetes as `kubectl kustomize` prints them, for the few features that the folder uses."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(kustomization) == {"apiVersion", "kind", "resources", "labels", "images"}
    found = []
    for name in kustomization["resources"]:
        one = yaml.safe_load((BASE / name).read_text(encoding="utf-8"))
        for labels in kustomization["labels"]:
            assert set(labels) == {"pairs"}
            one["metadata"]["labels"] |= labels["pairs"]
        found.append(one)
    return found


def rendered(folder: Path, values: Mapping[str, Any] | None = None, release: str = "augment") -> list[dict[str, Any]]:
    """Objects of the Helm chart, rendered by Go's own templates in `folder`.

    Helm adds functions to Go's templates; the chart uses none of them, so that no helm program is needed for a test.
    values: changes to values.yaml, merged key by key as Helm does.
    """
    context = {
        "Values": merged(yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8")), values or {}),
        "Chart": yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8")),
        "Release": {"Name": release, "Namespace": "default"},
    }
    facts = folder / "values.json"
    facts.write_text(json.dumps(context), encoding="utf-8")
    found = []
    for template in sorted((CHART / "templates").glob("*.yaml")):
        output = folder / template.name
        command = [sys.executable, "-c", _RENDER, str(template), str(facts), str(output)]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert finished.returncode == 0, f"{template.name}: {finished.stderr}"
        text = output.read_text(encoding="utf-8")
        assert "<no value>" not in text, f"{template.name} uses a value that does not exist:\n{text}"
        if (one := yaml.safe_load(text)) is not None:
            found.append(one)
    return found


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes`, mappings merged key by key."""
    result = dict(values)
    for name, change in changes.items():
        old = result.get(name)
        result[name] = merged(old, change) if isinstance(old, Mapping) and isinstance(change, Mapping) else change
    return result
