"""`predict`, `export` and `report` read and write an S3 bucket over an unreliable network, all of a file or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest

from shared.storage import objects
from shared.storage.whole_file import whole_files
from tests.integration.test_predict import TEXTS, save_rows
from tests.support.command import call_main
from tests.support.object_store import ENVIRONMENT, FaultyProxy, s3_client
from tests.support.runs import save_random_classifier, write_task_run, write_teacher_run
from trainer.remote_run import RemoteRun


class LostUploads(FaultyProxy):
    """Loses every upload."""

    def draw(self, command: str, size: int) -> str:
        """The fault for a request; empty for none."""
        return "torn-upload" if command == "PUT" and size else super().draw(command, size)


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A boto3 client of the server, which this process reaches through faults in a tenth of the requests."""
    client = s3_client(server)
    with FaultyProxy(server, 0.1, seed=3) as proxy:
        use(proxy.url, monkeypatch, tmp_path)
        yield client
    for one in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=one["Key"])


def use(url: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """Let this process reach S3 at `url`."""
    objects._client_of.cache_clear()
    for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": url, "TRAINER_CACHE": str(cache / "cache")}).items():
        monkeypatch.setenv(name, value)


def keys_of(bucket: Any) -> set[str]:
    return {one["Key"] for one in bucket.list_objects_v2(Bucket="bucket").get("Contents", [])}


def content_of(bucket: Any, key: str) -> bytes:
    content: bytes = bucket.get_object(Bucket="bucket", Key=key)["Body"].read()
    return content


def call(*arguments: str, code: int = 0) -> Any:
    finished = call_main(*arguments, program="trainer")
    assert finished.returncode == code, finished.stderr
    return finished


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_classifier(tmp_path_factory.mktemp("model") / "bert", labels=2, hidden=32)


def predict(model: Path | str, data: str, output: str, *more: str, code: int = 0) -> Any:
    options = ("--text-column", "text", "--dtype", "fp32", "--threads", "1", *more)
    return call("predict", "--model", str(model), "--data", data, "--output", output, *options, code=code)


def test_a_run_in_the_bucket_answers_like_the_local_one(bucket: Any, model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    # So short that a reader without this option would answer otherwise.
    (run / "config.json").write_text(json.dumps({"command": "task", "max_length": 4}))
    (run / "result.json").write_text("{}")
    for path in run.rglob("*"):
        if path.is_file():
            bucket.upload_file(str(path), "bucket", f"runs/own/{path.relative_to(run).as_posix()}")
    rows = str(save_rows(tmp_path / "rows.csv", TEXTS))
    answers = []
    for number, one in enumerate((str(run), "s3://bucket/runs/own", "s3://bucket/runs/own/model", str(model))):
        predict(one, rows, str(tmp_path / f"{number}.csv"))
        answers.append((tmp_path / f"{number}.csv").read_text())
    assert answers[0] == answers[1] == answers[2] != answers[3]


def test_predictions_go_to_the_bucket_and_replace_older_ones(bucket: Any, model: Path, tmp_path: Path) -> None:
    rows = save_rows(tmp_path / "rows.csv", [*TEXTS, " "])
    bucket.upload_file(str(rows), "bucket", "in/rows.csv")
    local, remote = tmp_path / "out.csv", "s3://bucket/out/rows.csv"
    predict(model, str(rows), str(local))
    finished = predict(model, "s3://bucket/in/rows.csv", remote)
    assert f"1 rows were set aside: {remote}.quarantine.jsonl" in finished.stdout
    assert content_of(bucket, "out/rows.csv") == local.read_bytes()
    assert json.loads(content_of(bucket, "out/rows.csv.quarantine.jsonl"))["where"].startswith("s3://bucket/in/")
    # Rows set aside by an earlier call are not those of this one.
    predict(model, str(save_rows(tmp_path / "whole.csv", TEXTS[:3])), remote)
    assert len(content_of(bucket, "out/rows.csv").splitlines()) == 4
    assert keys_of(bucket) == {"in/rows.csv", "out/rows.csv"}
    refused = predict(model, "s3://bucket/in/rows.csv", "s3://bucket/in/rows.csv", code=2)
    assert "is one of the files of --data" in refused.stderr


def test_an_onnx_file_and_its_facts_go_to_the_bucket(bucket: Any, model: Path, tmp_path: Path) -> None:
    call("export", "--model", str(model), "--format", "onnx", "--output", "s3://bucket/new/bert.onnx", "--rows", "4")
    assert keys_of(bucket) == {"new/bert.onnx", "new/bert.json"}
    (tmp_path / "fetched.onnx").write_bytes(content_of(bucket, "new/bert.onnx"))
    onnx.checker.check_model(str(tmp_path / "fetched.onnx"))
    assert json.loads(content_of(bucket, "new/bert.json"))["format"] == "onnx"


def test_a_report_and_its_figures_go_to_the_bucket(bucket: Any, tmp_path: Path) -> None:
    teacher = write_teacher_run(tmp_path / "teacher")
    runs = [str(teacher), str(write_task_run(tmp_path / "student", teacher, seed=1, score=0.8))]
    call("report", "--runs", *runs, "--no-timing", "--output", "s3://bucket/pages/report.html")
    assert keys_of(bucket) == {"pages/report.html", "pages/report.json"}
    page = content_of(bucket, "pages/report.html").decode()
    assert "report.json" in page
    assert page.rstrip().endswith("</html>")


def test_runs_in_the_bucket_are_reported_as_those_on_disk(bucket: Any, tmp_path: Path) -> None:
    teacher = write_teacher_run(tmp_path / "teacher")
    local = [teacher, write_task_run(tmp_path / "student", teacher, seed=1, score=0.8)]
    for run in local:
        config = json.loads((run / "config.json").read_text())
        result = json.loads((run / "result.json").read_text())
        if run != teacher:
            config["teacher"] = result["teacher"] = "s3://bucket/runs/teacher"
        for path in [one for one in run.rglob("*") if one.is_file()]:
            content = {"config.json": json.dumps(config).encode(), "result.json": json.dumps(result).encode()}.get(
                path.relative_to(run).as_posix(), path.read_bytes()
            )
            bucket.put_object(Bucket="bucket", Key=f"runs/{path.relative_to(tmp_path).as_posix()}", Body=content)
    few = ("--alternations", "3", "--batch-sizes", "2", "--dtypes", "fp32", "--device", "cpu", "--threads", "1")
    names = ("teacher", "student")
    call("report", "--runs", *map(str, local), *few, "--output", str(tmp_path / "local.html"))
    call("report", "--runs", *(f"s3://bucket/runs/{one}" for one in names), *few, "--output", str(tmp_path / "s3.html"))
    here, there = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("local", "s3"))
    assert [one["folder"] for one in there["runs"]] == [f"s3://bucket/runs/{one}" for one in names]
    assert [one["measurements"][0]["batch_size"] for one in there["timings"]] == [2]
    for one, other in zip(here["runs"], there["runs"], strict=True):
        assert one["dev"] == other["dev"]
        assert one["smaller"] == other["smaller"]
    page = (tmp_path / "s3.html").read_text(encoding="utf-8")
    assert page.count("<svg") == (tmp_path / "local.html").read_text(encoding="utf-8").count("<svg") > 0, "curves"


def test_a_run_that_goes_on_in_the_bucket_is_reported_so_far(bucket: Any, tmp_path: Path) -> None:
    run = write_task_run(tmp_path / "student", tmp_path / "no-teacher", is_finished=False)
    options = json.loads((run / "config.json").read_text())
    remote = RemoteRun("s3://bucket/runs/open")
    remote.open("task", {name: value for name, value in options.items() if name != "command"}, {}, ())
    (remote.path / "metrics.jsonl").write_bytes((run / "metrics.jsonl").read_bytes())
    remote.publish()
    remote.close()
    said = call("report", "--runs", "s3://bucket/runs/open", "--no-timing", "--output", str(tmp_path / "r.html"))
    assert "1 run (1 unfinished)" in said.stdout
    call("report", "--runs", str(run), "--no-timing", "--output", str(tmp_path / "local.html"))
    curves = [(tmp_path / name).read_text(encoding="utf-8").count("<svg") for name in ("r.html", "local.html")]
    assert curves[0] == curves[1] > 0


def test_a_run_that_is_not_in_the_bucket_is_one_line(bucket: Any, tmp_path: Path) -> None:
    refused = call("report", "--runs", "s3://bucket/runs/none", "--output", str(tmp_path / "r.html"), code=1)
    assert "--runs s3://bucket/runs/none: not a run of the trainer (it has no config.json)" in refused.stderr


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        ("s3://nowhere/out.csv", 1, "nowhere"),
        ("s3://bucket.csv", 2, "the file name is missing"),
        ("hdfs://node/out.csv", 2, "an output must be a local path"),
    ],
)
def test_a_wrong_target_is_reported_before_the_model_is_loaded(
    bucket: Any, tmp_path: Path, output: str, code: int, says: str
) -> None:
    refused = predict(tmp_path / "no-model", "no-data.csv", output, code=code)
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_a_lost_upload_leaves_the_old_object_and_the_new_file_on_this_machine(
    bucket: Any, server: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Bucket="bucket", Key="out/rows.csv", Body=b"old")
    rows = save_rows(tmp_path / "rows.csv", TEXTS)
    monkeypatch.setattr(objects, "MAX_TRIES", 1)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with LostUploads(server, 0) as proxy:
        use(proxy.url, monkeypatch, tmp_path)
        failed = predict(model, str(rows), "s3://bucket/out/rows.csv", code=1)
    assert "Traceback" not in failed.stderr
    folder = Path(failed.stderr.splitlines()[-1].rpartition("is kept in ")[2])
    predict(model, str(rows), str(tmp_path / "again.csv"))
    assert (folder / "rows.csv").read_bytes() == (tmp_path / "again.csv").read_bytes()
    assert content_of(bucket, "out/rows.csv") == b"old"


def test_an_interrupted_writer_leaves_nothing(bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def write() -> None:
        with whole_files("s3://bucket/a.json", "s3://bucket/a.html") as (first, _):
            first.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert keys_of(bucket) == set()
    assert not list(tmp_path.iterdir())
