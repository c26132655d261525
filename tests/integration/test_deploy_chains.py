"""The commands in the manifests and batch scripts really run, in their order, on a tiny model: not only their options.

Only what a laptop cannot have is replaced in a command: names of models, paths, the GPU and its sizes. The bucket is a
real S3 server on loopback.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
import yaml

from tests.support.command import ROOT
from tests.support.models import save_random_model
from tests.support.object_store import ENVIRONMENT, moto_server

DEPLOY = ROOT / "deploy"
LABELLED = ("a good film with a great ending\t1", "a bad plot and terrible acting\t0", "the cat sat near a river\t1")


class Site:
    """What stands for the cluster: /data with inputs, a model instead of the hub's, a bucket."""

    def __init__(self, folder: Path, endpoint: str) -> None:
        self.data = folder / "data"
        self.model = save_random_model("bert-uncased", folder / "model", max_length=512)
        glue = self.data / "glue" / "SST-2"
        glue.mkdir(parents=True)
        for name, count in (("train", 48), ("dev", 12)):
            lines = [LABELLED[row % 3].replace("\t", f" {row}\t") for row in range(count)]
            (glue / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n", encoding="utf-8")
        corpus = self.data / "corpus" / "wikipedia.txt"
        corpus.parent.mkdir()
        corpus.write_text("\n".join(f"The quick brown fox number {row} jumps far." for row in range(60)) + "\n")
        self.environment = {
            **os.environ,
            **ENVIRONMENT,
            "AWS_ENDPOINT_URL": endpoint,
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    def here(self, line: str) -> str:
        """The line with what this machine lacks replaced."""
        replaced = {
            "google-bert/bert-base-uncased": str(self.model),
            "tinybert4": "2,32,48,4",
            " /data/": f" {self.data}/",
            "--device cuda": "--device cpu",
            "--mlm-actors 8": "--mlm-actors 1",
            " --address auto": "",
        }
        for old, new in replaced.items():
            line = line.replace(old, new)
        return line

    def run(self, command: list[str], more: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=ROOT,
            env=self.environment | dict(more or {}),
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with moto_server(folder / "log") as url:
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
        client.create_bucket(Bucket="my-bucket")
        found = Site(folder, url)
        # One augmentation feeds all training chains, as on a cluster.
        augmented = found.run(["bash", "-c", found.here(entrypoint("rayjob-augment.yaml"))])
        assert augmented.returncode == 0, augmented.stderr
        yield found


def entrypoint(name: str) -> str:
    manifest = yaml.safe_load((DEPLOY / "kuberay" / name).read_text(encoding="utf-8"))
    line: str = manifest["spec"]["entrypoint"]
    return line


@pytest.mark.slow
def test_the_training_job_of_kuberay_runs_and_its_repetition_changes_nothing(site: Site) -> None:
    line = site.here(entrypoint("rayjob-train.yaml"))
    assert " /data/" not in line
    finished = site.run(["bash", "-c", line])
    assert finished.returncode == 0, finished.stderr
    model = site.data / "runs" / "sst2" / "student" / "model" / "model.safetensors"
    before = model.read_bytes()
    # What backoffLimit does after a failure.
    again = site.run(["bash", "-c", line])
    assert again.returncode == 0, again.stderr
    assert model.read_bytes() == before


@pytest.mark.slow
def test_the_training_script_of_slurm_runs(site: Site, tmp_path: Path) -> None:
    glue = site.data / "glue" / "SST-2"
    job = {
        "SLURM_SUBMIT_DIR": str(ROOT),
        "VENV": str(Path(sys.executable).parents[1]),
        "TASK": "SST-2",
        "TRAIN": str(glue / "train.tsv"),
        "DEV": str(glue / "dev.tsv"),
        "AUGMENTED": "s3://my-bucket/augmented/sst2",
        "RUNS": str(tmp_path / "runs"),
        "ENCODER": str(site.model),
        "STUDENT": "2,32,48,4",
        "CORPUS": str(site.data / "corpus" / "wikipedia.txt"),
    }
    finished = site.run(["bash", str(DEPLOY / "slurm" / "train.sbatch"), "--epochs", "1"], job)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "runs" / "general" / "model").is_dir()
    assert (tmp_path / "runs" / "student" / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_the_pages_commands_for_ray_jobs_run(site: Site, tmp_path: Path) -> None:
    """docs/deploy/ray-jobs.md: its job and its training, run without the submission."""
    page = (ROOT / "docs" / "deploy" / "ray-jobs.md").read_text(encoding="utf-8").replace("\\\n", " ")
    calls = [line.partition("submit.sh ")[2] for line in page.splitlines()]
    # `trainer distill` runs in test_distill.py.
    lines = [call for call in calls if call.startswith(("augment_service", "trainer task"))]
    assert len(lines) == 2
    glue, encoder = site.data / "glue" / "SST-2", str(site.model)
    teacher = ["python", "-m", "trainer", "teacher", "--task", "SST-2", "--encoder", encoder, "--epochs", "1"]
    teacher += ["--train", str(glue / "train.tsv"), "--dev", str(glue / "dev.tsv")]
    finished = site.run([*teacher, "--output", str(tmp_path / "runs" / "teacher")])
    assert finished.returncode == 0, finished.stderr
    for line in lines:
        line = site.here(line.replace("/nfs/glue", "/data/glue").replace("/nfs/", f"{tmp_path}/"))
        more = f" --mlm {site.model}" if line.startswith("augment_service") else ""
        finished = site.run(["bash", "-c", f"python -m {line}{more}"])
        assert finished.returncode == 0, f"{line}\n{finished.stderr}"
