"""Training into an S3 bucket over an unreliable network, killed and continued on a machine without its files."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.bucket_runs import objects_of, run, without_times
from tests.support.distillation import Output, metrics_of, save_dev, save_teacher, source_rows
from tests.support.object_store import FaultyProxy, s3_client

COMMON = ["--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32"]
COMMON += ["--checkpoint-seconds", "0.001", "--epochs", "2", "--log-level", "error"]


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("inputs")
    teacher, dev = str(save_teacher(folder / "encoder")), str(save_dev(folder / "dev.tsv", 60))
    Output(folder / "augmented", num_rows=24, emit="candidates").finish()
    (folder / "corpus.txt").write_text("\n".join(row.text_a for row in source_rows(120)) + "\n")
    corpus = ["--corpus", str(folder / "corpus.txt"), "--max-length", "32", *COMMON]
    student = ["--student", "2,16,32,4", "--teacher", teacher]
    shards = ["--task", "SST-2", "--augmented", str(folder / "augmented"), "--dev", dev, "--window-shards", "2"]
    return {
        "teacher": ["teacher", "--task", "SST-2", "--train", dev, "--encoder", teacher, *COMMON],
        "task": ["task", *shards, *student, *COMMON],
        "general": ["general", *corpus, *student],
    }


def check_killed_and_continued(command: list[str], killed_at: int, server: str, folder: Path) -> None:
    name = command[0]
    finished = run([*command, "--output", str(folder / "local")], server, folder / "cache")
    assert finished.returncode == 0, finished.stderr
    with FaultyProxy(server, 0.1, seed=5) as proxy:
        arguments = [*command, "--output", f"s3://bucket/{name}/run"]
        killed = run(arguments, proxy.url, folder / "first", killed_at)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert "result.json" not in objects_of(server, f"{name}/run/")
        shutil.rmtree(folder / "first")
        finished = run(arguments, proxy.url, folder / "second")
        assert finished.returncode == 0, finished.stderr
        assert f"s3://bucket/{name}/run/model" in finished.stdout
        assert proxy.faults
    found = objects_of(server, f"{name}/run/")
    local = folder / "local"
    assert found["model/model.safetensors"] == (local / "model" / "model.safetensors").read_bytes()
    expected = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    expected = {one for one in expected if not one.endswith(".pt") and not one.startswith("tensorboard/")}
    assert expected <= set(found)
    assert without_times(found["metrics.jsonl"]) == without_times((local / "metrics.jsonl").read_bytes())
    assert metrics_of(local)
    # A finished run is not trained again, and leaves no files on this machine.
    again = run(arguments, server, folder / "third")
    assert again.returncode == 0, again.stderr
    assert not [path for path in (folder / "third").rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.slow
def test_a_teacher_killed_in_mid_run_continues_from_the_bucket(
    commands: dict[str, list[str]], server: str, tmp_path: Path
) -> None:
    command = commands["teacher"]
    train = command[command.index("--train") + 1]
    s3_client(server).put_object(Bucket="bucket", Key="data/train.tsv", Body=Path(train).read_bytes())
    command = ["s3://bucket/data/train.tsv" if one == train else one for one in command]
    check_killed_and_continued(command, 6, server, tmp_path)
    scored = ["evaluate", "--task", "SST-2", "--data", train, "--device", "cpu", "--dtype", "fp32", "--json", "--model"]
    remote = run([*scored, "s3://bucket/teacher/run"], server, tmp_path / "models")
    local = run([*scored, str(tmp_path / "local")], server, tmp_path / "models")
    assert remote.returncode == 0, remote.stderr
    scores = [json.loads(one.stdout) for one in (remote, local)]
    assert scores[0] | {"model": ""} == scores[1] | {"model": ""}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "killed_at"), [("task", 9), ("general", 4)])
def test_other_stages_killed_in_mid_run_continue_from_the_bucket(
    commands: dict[str, list[str]], server: str, tmp_path: Path, name: str, killed_at: int
) -> None:
    check_killed_and_continued(commands[name], killed_at, server, tmp_path)
