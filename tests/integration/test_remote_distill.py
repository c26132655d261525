"""`trainer distill` into a bucket: machines are lost with their disks, others go on from the bucket alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.bucket_runs import lose_machine, names_of, objects_of, run, started, wait_until
from tests.support.object_store import FaultyProxy, s3_client
from tests.support.pipeline import Workshop, labelled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
OUTPUT = "s3://bucket/student"


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(scope="module")
def reviews(workshop: Workshop) -> Path:
    return workshop.save("reviews.csv", labelled())


@pytest.fixture(scope="module")
def local(workshop: Workshop, reviews: Path, server: str) -> Path:
    output = workshop.folder / "local"
    finished = run(workshop.arguments(reviews, output), server, workshop.folder / "cache")
    assert finished.returncode == 0, finished.stderr
    return output


def test_lost_machines_are_continued_from_the_bucket_to_the_same_weights(
    workshop: Workshop, reviews: Path, server: str, local: Path, tmp_path: Path
) -> None:
    arguments = workshop.arguments(reviews, OUTPUT)
    with FaultyProxy(server, 0.05, seed=11) as proxy:
        for machine, last in enumerate(("teacher/config.json", "onnx/model.onnx")):
            cache = tmp_path / f"machine-{machine}"
            with started(arguments, proxy.url, cache) as process:
                wait_until(lambda last=last: last in names_of(server, "student/"), process)  # type: ignore[misc]
                lose_machine(process)
            assert "result.json" not in names_of(server, "student/")
            shutil.rmtree(cache)
        finished = run(arguments, proxy.url, tmp_path / "last")
        assert finished.returncode == 0, finished.stderr
        assert f"resuming {OUTPUT}" in finished.stderr
        assert proxy.faults
    assert f"{OUTPUT}/model   {OUTPUT}/onnx   {OUTPUT}/report.html   {OUTPUT}/README.md" in finished.stdout
    check_same_outcome(objects_of(server, "student/"), local)
    again = run(arguments, server, tmp_path / "last")
    assert again.returncode == 0, again.stderr
    assert "student: already done" in again.stderr
    left = [path for path in (tmp_path / "last" / "tinybert-runs").rglob("*") if path.is_file()]
    assert all(path.suffix == ".lock" or path.name == ".lock" for path in left), left
    other = run([*arguments, "--seed", "7"], server, tmp_path / "last")
    assert (other.returncode, "holds a run with a different seed (0, now 7)" in other.stderr) == (1, True)
    check_predicts(workshop, server, local, tmp_path)


def check_same_outcome(found: dict[str, bytes], local: Path) -> None:
    """Everything that is handed on is there, with the weights and scores of the undisturbed local run."""
    parts = ("model", "onnx")
    expected = {path.relative_to(local).as_posix() for part in parts for path in (local / part).rglob("*")}
    expected |= {"report.html", "report.json", "README.md", "result.json", "plan.json", "seconds.json", "config.json"}
    expected |= {"augmented/_SUCCESS", "teacher/result.json", "student/result.json", "logs/student.log"}
    assert expected <= set(found)
    for name in ("model/model.safetensors", "model/tokenizer_config.json", "model/config.json", "plan.json"):
        assert found[name] == (local / name).read_bytes(), name
    results = [json.loads(content) for content in (found["result.json"], (local / "result.json").read_bytes())]
    for name in ("metrics", "teacher_metrics", "baselines", "kept", "choices"):
        assert results[0][name] == results[1][name]
    assert results[0]["onnx_bytes"].keys() == {"model.onnx", "model-int8.onnx"}
    assert results[0]["faster"].keys() == {"1", "32"}


def check_predicts(workshop: Workshop, server: str, local: Path, folder: Path) -> None:
    """The output and its model answer like the local ones."""
    texts = workshop.save("new.csv", [{"text": row["text"], "id": index} for index, row in enumerate(labelled(20))])
    answers = []
    for model in (OUTPUT, str(local), f"{OUTPUT}/onnx/model.onnx"):
        output = folder / "answers.jsonl"
        finished = run(
            [
                *("predict", "--model", model, "--data", str(texts), "--text-column", "text", "--dtype", "fp32"),
                *("--device", "cpu", "--output", str(output)),
            ],
            server,
            folder / "models",
        )
        assert finished.returncode == 0, finished.stderr
        answers.append(output.read_text())
    assert answers[0] == answers[1]
    labels = [[json.loads(line)["predicted_label"] for line in one.splitlines()] for one in answers]
    assert labels[0] == labels[2]


def test_a_prefix_with_anything_else_in_it_is_refused(
    workshop: Workshop, reviews: Path, server: str, tmp_path: Path
) -> None:
    client = s3_client(server)
    client.put_object(Bucket="bucket", Key="foreign/notes.txt", Body=b"not ours")
    client.put_object(Bucket="bucket", Key="other/config.json", Body=b'{"command": "teacher"}')
    refused = run(workshop.arguments(reviews, "s3://bucket/foreign"), server, tmp_path)
    assert refused.returncode == 2
    assert "s3://bucket/foreign is not empty and holds no run of `trainer distill`" in refused.stderr.splitlines()[-1]
    refused = run(workshop.arguments(reviews, "s3://bucket/other"), server, tmp_path)
    assert refused.returncode == 1
    assert 's3://bucket/other holds a run with a different command ("teacher", now "distill")' in refused.stderr
    refused = run(workshop.arguments(reviews, "s3://missing/run"), server, tmp_path)
    assert refused.returncode == 1
    assert "NoSuchBucket" in refused.stderr.splitlines()[-1]
    assert names_of(server, "foreign/") == {"notes.txt"}
    assert names_of(server, "other/") == {"config.json"}
