"""Two workers of Ray Train into a bucket: the bits of two workers on a disk, killed and continued without that disk."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.bucket_runs import names_of, objects_of, run, started, wait_until, without_times
from tests.support.distillation import save_dev, save_teacher
from tests.support.object_store import ENVIRONMENT, FaultyProxy, s3_client
from tests.support.ray_nodes import TOKEN_ENVIRONMENT, StartedNodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NAMESPACE = ["unshare", "--mount"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("inputs")
    dev, encoder = str(save_dev(folder / "dev.tsv", 60)), str(save_teacher(folder / "encoder"))
    options = ["--threads", "1", "--loader-workers", "0", "--batch-size", "8", "--device", "cpu", "--dtype", "fp32"]
    options += ["--epochs", "30", "--checkpoint-seconds", "0.2", "--workers", "2"]
    return ["teacher", "--task", "SST-2", "--train", dev, "--encoder", encoder, *options]


@pytest.fixture(scope="module")
def local(command: list[str], server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("local") / "run"
    finished = run([*command, "--output", str(output)], server, output.parent / "cache")
    assert finished.returncode == 0, finished.stderr
    return output


def num_commits(server: str, prefix: str) -> int:
    """Commits made so far under a prefix of the bucket."""
    names = [name for name in names_of(server, prefix) if name.startswith("run-state/commit-")]
    return max((int(name[-13:-5]) for name in names), default=0)


class HeldCommit(FaultyProxy):
    """A server without faults that holds commit number `number` until `is_released`: training stands still there."""

    def __init__(self, upstream: str, number: int) -> None:
        super().__init__(upstream, share=0)
        self.is_held, self.is_released = threading.Event(), threading.Event()
        self._name = f"/run-state/commit-{number:08}.json"

    def hold(self, command: str, path: str) -> None:
        if command == "PUT" and self._name in path:
            self.is_held.set()
            self.is_released.wait()


def check_equal(server: str, prefix: str, local: Path) -> None:
    """The outcome in the bucket is that of the run on disk."""
    found = objects_of(server, prefix)
    expected = {path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file()}
    expected = {one for one in expected if not one.endswith(".pt") and not one.startswith(("tensorboard/", "ray/"))}
    assert expected <= set(found)
    assert not [name for name in found if name.startswith("ray/") or name.endswith("stop-requested")]
    assert found["model/model.safetensors"] == (local / "model" / "model.safetensors").read_bytes()
    assert without_times(found["metrics.jsonl"]) == without_times((local / "metrics.jsonl").read_bytes())
    results = [json.loads(content) for content in (found["result.json"], (local / "result.json").read_bytes())]
    for one in results:
        del one["seconds"], one["data_wait_share"]
    assert results[0] == results[1]


def test_a_stopped_run_is_continued_by_nodes_without_a_common_disk_also_after_one_is_lost(
    command: list[str], server: str, local: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not create namespaces")
    arguments = [*command, "--output", "s3://bucket/nodes/run"]
    check_ctrl_c(arguments, server, tmp_path / "first")
    # The same path is another, empty disk on each node.
    disk = tmp_path / "disk"
    disk.mkdir()
    own_disk = [*NAMESPACE, "sh", "-c", f'mount -t tmpfs none {disk} && exec "$@"', "sh"]
    for name, value in TOKEN_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    # The nodes take the run over with commit 3.
    proxy, nodes = HeldCommit(server, 5), StartedNodes(0)
    nodes.environment |= ENVIRONMENT | {"AWS_ENDPOINT_URL_S3": proxy.url, "TRAINER_CACHE": str(disk)}
    arguments += ["--address", nodes.address]
    with contextlib.closing(nodes), proxy:
        for _ in range(2):
            nodes.add(own_disk)
        with started(arguments, proxy.url, disk) as process:
            wait_until(proxy.is_held.is_set, process)
            nodes.kill_node(0)
            proxy.is_released.set()
            assert process.wait(200) == 1
        assert num_commits(server, "nodes/run/") in (4, 5)
        assert "result.json" not in names_of(server, "nodes/run/")
        nodes.add(own_disk)
        finished = run(arguments, proxy.url, disk)
    assert finished.returncode == 0, finished.stderr
    assert "resumed" in finished.stderr
    assert not list(disk.rglob("*.pt"))
    check_equal(server, "nodes/run/", local)


def check_ctrl_c(arguments: list[str], server: str, disk: Path) -> None:
    """Ctrl-C publishes a checkpoint of this moment. The disk is lost afterwards."""
    with started([*arguments, "--checkpoint-seconds", "1000"], server, disk) as process:
        wait_until(lambda: bool(list(disk.rglob("metrics.jsonl"))), process)
        assert num_commits(server, "nodes/run/") == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert "checkpoint=written" in disk.with_suffix(".log").read_text()
    assert num_commits(server, "nodes/run/") == 2
    shutil.rmtree(disk)


def test_the_run_of_another_command_is_refused_before_ray_starts(
    command: list[str], server: str, tmp_path: Path
) -> None:
    s3_client(server).put_object(Bucket="bucket", Key="other/run/config.json", Body=b'{"command": "distill"}')
    refused = run([*command, "--output", "s3://bucket/other/run"], server, tmp_path)
    assert refused.returncode == 1
    assert 's3://bucket/other/run holds a run with a different command ("distill", now "teacher")' in refused.stderr
    assert names_of(server, "other/run/") == {"config.json"}
