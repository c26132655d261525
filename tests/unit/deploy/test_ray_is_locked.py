"""Every manifest that starts Ray requires a token: without one, whoever reaches the dashboard can run commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"


def clusters(document: Any) -> Iterator[dict[str, Any]]:
    """Every Ray cluster specification in a document, however deep."""
    if isinstance(document, dict):
        if "headGroupSpec" in document:
            yield document
        for value in document.values():
            yield from clusters(value)
    elif isinstance(document, list):
        for value in document:
            yield from clusters(value)


def manifests_with_ray() -> list[Path]:
    """All YAML files under deploy/ that start a Ray cluster."""
    return [
        path
        for path in sorted(DEPLOY.rglob("*.y*ml"))
        if any(list(clusters(one)) for one in yaml.safe_load_all(path.read_text(encoding="utf-8")))
    ]


def test_the_search_finds_the_manifests() -> None:
    assert {path.name for path in manifests_with_ray()} >= {
        "raycluster.yaml",
        "rayjob-augment.yaml",
        "rayjob-train.yaml",
        "rayservice.yaml",
    }


@pytest.mark.parametrize("path", manifests_with_ray(), ids=lambda path: path.name)
def test_ray_requires_a_token_and_pods_are_unprivileged(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        for cluster in clusters(document):
            assert cluster["authOptions"]["mode"] == "token"
            assert cluster["authOptions"]["secretName"]
            # KubeRay decides by the version whether it can enforce the token.
            assert cluster["rayVersion"] == "2.60.0"
            for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
                pod = group["template"]["spec"]
                assert pod["securityContext"]["runAsNonRoot"] is True
                for container in pod["containers"]:
                    assert container["securityContext"]["allowPrivilegeEscalation"] is False
                    assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_the_head_script_sets_the_token_mode_itself() -> None:
    script = (DEPLOY / "ray" / "start-head.sh").read_text(encoding="utf-8")
    assert 'export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"' in script
