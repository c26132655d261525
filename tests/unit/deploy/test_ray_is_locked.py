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
        if "templates" not in path.parts
        and any(list(clusters(one)) for one in yaml.safe_load_all(path.read_text(encoding="utf-8")))
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


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod in a document, however deep: whatever has containers."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for value in document.values():
            yield from pods(value)
    elif isinstance(document, list):
        for value in document:
            yield from pods(value)


def manifests_with_pods() -> list[Path]:
    # A chart's templates become YAML only when they are rendered: test_kubernetes.py.
    plain = [path for path in sorted(DEPLOY.rglob("*.y*ml")) if "templates" not in path.parts]
    return [path for path in plain if any(pods(one) for one in yaml.safe_load_all(path.read_text(encoding="utf-8")))]


@pytest.mark.parametrize("path", manifests_with_pods(), ids=lambda path: path.name)
def test_every_pod_is_accepted_by_a_restricted_namespace(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        for pod in pods(document):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in pod["containers"]:
                assert container["securityContext"]["allowPrivilegeEscalation"] is False
                assert container["securityContext"]["capabilities"]["drop"] == ["ALL"]
                assert container["resources"]["requests"]["memory"]


@pytest.mark.parametrize(
    "path", [one for one in manifests_with_ray() if one.name.startswith("rayjob")], ids=lambda path: path.name
)
def test_a_ray_jobs_submitter_is_one_of_our_pods_and_may_reach_the_head(path: Path) -> None:
    (job,) = yaml.safe_load_all(path.read_text(encoding="utf-8"))
    labels = job["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    policy = yaml.safe_load((DEPLOY / "kuberay" / "network.yaml").read_text(encoding="utf-8"))
    allowed = [one["podSelector"].get("matchLabels") for one in policy["spec"]["ingress"][0]["from"]]
    assert labels in allowed
