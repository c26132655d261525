"""Shell scripts and the Dockerfile: they pass their linters, and every command of ours in them is valid.

The scripts really run, but the programs that they start (ray, srun, python) are stubs that record their arguments.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from augment_service.config import RunConfig
from tests.support.entrypoints import build_config, commands_in, run_recorded

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent
SCRIPTS = sorted(str(path.relative_to(ROOT)) for kind in ("*.sh", "*.sbatch") for path in DEPLOY.rglob(kind))
RUN = ["--task", "SST-2", "--input", "train file.tsv", "--output", "out"]
SERVER = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"}
STAYS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


def test_shell_scripts_pass_shellcheck() -> None:
    assert len(SCRIPTS) >= 6
    finished = subprocess.run([str(BIN / "shellcheck"), *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "")


def test_the_dockerfile_passes_hadolint_and_a_bad_one_does_not(tmp_path: Path) -> None:
    lint = [str(BIN / "hadolint"), "--no-color"]
    finished = subprocess.run([*lint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True)
    assert (finished.returncode, finished.stdout) == (0, "")
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM python:latest\nRUN apt-get install wget\n", encoding="utf-8")
    assert subprocess.run([*lint, str(bad)], capture_output=True).returncode != 0


def test_the_dockerfile_copies_exactly_what_dockerignore_includes() -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore
    included = {line[1:] for line in ignore if line.startswith("!")}
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copies = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    copied = {name for names in copies for name in names}
    assert copied == included
    assert all((ROOT / name).exists() for name in copied)


def test_the_dockerfile_runs_valid_commands_without_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("USER")] == ["USER 1000:1000"]
    commands = [yaml.safe_load(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    assert ["python", "-m", "augment_service", "--help"] in commands
    for command in commands:
        if "--help" not in command:
            build_config(command[2:])


def test_submit_passes_the_command_to_ray_unchanged(tmp_path: Path) -> None:
    script = DEPLOY / "ray" / "submit.sh"
    wanted = {"SUBMISSION_ID": "aug-1", "ENTRYPOINT_GPUS": "1"}
    finished, calls = run_recorded(script, ["augment_service", "run", *RUN], tmp_path, SERVER | wanted, {"ray": ""})
    assert finished.returncode == 0, finished.stderr
    (call,) = calls
    options, entrypoint = call[: call.index("--")], call[call.index("--") + 1 :]
    assert options[:3] == ["ray", "job", "submit"]
    assert options[options.index("--submission-id") + 1] == "aug-1"
    assert options[options.index("--entrypoint-num-gpus") + 1] == "1"
    assert options[options.index("--working-dir") + 1] == "."
    environment = ROOT / options[options.index("--runtime-env") + 1]
    assert set(yaml.safe_load(environment.read_text(encoding="utf-8"))) <= {"env_vars", "config", "excludes"}
    assert entrypoint[:2] == ["python", "-m"]
    config = build_config(entrypoint[2:])
    assert isinstance(config, RunConfig)
    assert config.input == ("train file.tsv",)


def test_submit_says_what_it_needs(tmp_path: Path) -> None:
    script = DEPLOY / "ray" / "submit.sh"
    finished, calls = run_recorded(script, ["augment_service", "run"], tmp_path, {}, {"ray": ""})
    assert (finished.returncode, calls) == (1, [])
    assert "RAY_API_SERVER_ADDRESS" in finished.stderr
    finished, calls = run_recorded(script, [], tmp_path, SERVER, {"ray": ""})
    assert (finished.returncode, calls) == (2, [])


@pytest.mark.parametrize("mode", ["token", "disabled"])
def test_the_head_makes_a_token_when_there_is_none(tmp_path: Path, mode: str) -> None:
    script = DEPLOY / "ray" / "start-head.sh"
    finished, calls = run_recorded(script, ["--num-cpus=3"], tmp_path, {"RAY_AUTH_MODE": mode}, {"ray": ""})
    assert finished.returncode == 0, finished.stderr
    made = [call[1:] for call in calls if call[1] == "get-auth-token"]
    assert made == ([["get-auth-token", "--generate"]] if mode == "token" else [])
    assert calls[-1][:4] == ["ray", "start", "--head", "--block"]
    assert calls[-1][-1] == "--num-cpus=3"


def slurm_job(tmp_path: Path, **more: str) -> dict[str, str]:
    """Environment of a job on two nodes, with an empty virtualenv."""
    activate = tmp_path / "venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("", encoding="utf-8")
    return {
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "VENV": str(tmp_path / "venv"),
        "HEAD_IP": "10.0.0.1",
        "RAY_LOG": str(tmp_path / "ray.log"),
    } | more


def test_slurm_augmentation_starts_ray_on_all_nodes_and_runs_the_command_once(tmp_path: Path) -> None:
    starts = f"echo started; {STAYS}"
    waits_for_both = 'until [ "$(grep -c started "$RAY_LOG")" = 2 ]; do sleep 0.1; done'
    command = f'case "$*" in -c*) echo token;; *augment*) {waits_for_both}; exit 7;; esac'
    stubs = {"ray": starts, "srun": starts, "python": command}
    finished, calls = run_recorded(DEPLOY / "slurm" / "augment.sbatch", RUN, tmp_path, slurm_job(tmp_path), stubs)
    assert finished.returncode == 7, finished.stderr
    (head,) = [call for call in calls if call[0] == "ray"]
    assert {"--head", "--node-ip-address=10.0.0.1", "--port=21077"} <= set(head)
    (others,) = [call for call in calls if call[0] == "srun"]
    assert {"--nodes=1", "--ntasks=1", "--address=10.0.0.1:21077"} <= set(others)
    waits, runs = [call for call in calls if call[0] == "python" and call[1] != "-c"]
    assert waits[2:] == ["2", "300"]
    # The output of `ray start` on this node and on the others.
    assert (tmp_path / "ray.log").read_text() == "started\nstarted\n"
    config = build_config(runs[2:])
    assert isinstance(config, RunConfig)
    assert config.address == "auto"


def test_nodes_that_do_not_join_are_reported_with_rays_log() -> None:
    environment = os.environ | {"RAY_ADDRESS": "127.0.0.1:1", "RAY_LOG": "ray-77.log"}
    command = [sys.executable, str(DEPLOY / "slurm" / "wait_for_nodes.py"), "2", "0"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 1
    assert finished.stderr == "Ray at 127.0.0.1:1: no answer after 0 s; see ray-77.log\n"


def test_the_slurm_signal_reaches_the_command_and_the_job_is_requeued(tmp_path: Path) -> None:
    # The stub of our command sends its caller the signal that Slurm would send, and exits as `run` does.
    told = f"trap 'exit 130' TERM; kill -TERM $PPID; {STAYS.partition('; ')[2]}"
    stubs = {
        "ray": STAYS,
        "srun": STAYS,
        "scontrol": "",
        "python": f'case "$*" in -c*) echo token;; *augment*) {told};; esac',
    }
    finished, calls = run_recorded(DEPLOY / "slurm" / "augment.sbatch", RUN, tmp_path, slurm_job(tmp_path), stubs)
    assert finished.returncode == 130, finished.stderr
    assert [call for call in calls if call[0] == "scontrol"] == [["scontrol", "requeue", "77"]]


def test_slurm_training_runs_valid_commands(tmp_path: Path) -> None:
    names = ("TASK", "TRAIN", "DEV", "AUGMENTED", "RUNS", "CORPUS")
    environment = slurm_job(tmp_path) | dict.fromkeys(names, "/data/x") | {"TASK": "SST-2"}
    script = DEPLOY / "slurm" / "train.sbatch"
    finished, calls = run_recorded(script, [], tmp_path, environment, {"python": ""})
    assert finished.returncode == 0, finished.stderr
    assert [call[3] for call in calls] == ["teacher", "general", "annotate", "task"]
    for call in calls:
        build_config(call[2:])


def test_commands_in_the_deployment_pages_are_valid() -> None:
    checked: dict[str, int] = {}
    for page in sorted((ROOT / "docs" / "deploy").glob("*.md")):
        for block in page.read_text(encoding="utf-8").split("```")[1::2]:
            for line in block.replace("\\\n", " ").splitlines():
                for command in commands_in(line.partition(" #")[0]) if "python -m" in line else []:
                    if "…" not in command and "--help" not in command:
                        build_config(command)
                        checked[page.stem] = checked.get(page.stem, 0) + 1
    assert checked, "no page contains a complete command"
