"""One training worker in this process, or several through Ray Train.

Each worker runs the same function with its rank; gradients are summed in trainer.steps. One worker needs no Ray.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.compute.ray_session import ray_session
from shared.errors import ClusterError, ExpectedError, UsageError
from shared.storage.objects import is_remote
from trainer.config import GROWING, LoopConfig
from trainer.interruption import WorkersInterruption
from trainer.remote_run import RemoteRun
from trainer.result import RunResult, read_result
from trainer.run_folder import KEEPS_STAGES, open_run
from trainer.state import Worker

ConfigT = TypeVar("ConfigT", bound=LoopConfig)
Work = Callable[[ConfigT, Worker], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run that may start. path: its folder on this machine; output: what --output says, where the outcome will be."""

    path: Path
    output: str
    remote: RemoteRun | None = None

    @property
    def model(self) -> str:
        """Path or URI of the finished model."""
        return str(self.path / "model") if self.remote is None else f"{self.remote.uri}/model"


@contextlib.contextmanager
def start_run(command: str, config: LoopConfig, runtime: Mapping[str, Any] | None = None) -> Iterator[OpenRun]:
    """Open the run's folder, once this machine is known to be able to compute as asked. Raises ExpectedError.

    runtime: options that `config.json` records without checking them.
    """
    recorded = {"name": config.name, KEEPS_STAGES: True} | dict(runtime or {})
    if config.workers == 1:
        _local_worker(config)
    if not is_remote(config.output):
        path = open_run(config.output, command, config.identity(), recorded, GROWING)
        yield OpenRun(path=path, output=config.output)
        return
    if config.workers > 1:
        raise UsageError(f"--output {config.output}: --workers {config.workers} needs a folder that all of them see")
    remote = RemoteRun(config.output)
    try:
        remote.open(command, config.identity(), recorded, GROWING)
        yield OpenRun(path=remote.path, output=config.output, remote=remote)
    finally:
        remote.close()


def run_to_result(work: Work[ConfigT], config: ConfigT, run: OpenRun) -> RunResult:
    """The result of a run: of this call, or of the one that finished earlier. Raises ExpectedError."""
    is_finished = read_result(run.path) is not None
    if not is_finished:
        run_workers(work, config.model_copy(update={"output": str(run.path)}), run.remote)
    result = read_result(run.path)
    if result is None:
        raise UsageError(f"{run.output} has no result; run the command again")
    if run.remote is not None and not is_finished:
        run.remote.finish()
    return result


def run_workers(work: Work[ConfigT], config: ConfigT, remote: RemoteRun | None = None) -> None:
    """Call `work(config, worker)` here, or in each of --workers processes of Ray Train. Raises ExpectedError.

    remote: what publishes the checkpoints, where --output is not on this machine.
    """
    if config.workers > 1:
        _run_on_ray(work, config)
        return
    if config.threads:
        torch.set_num_threads(config.threads)
    work(config, replace(_local_worker(config), remote=remote))


def _local_worker(config: LoopConfig, rank: int = 0, world: int = 1) -> Worker:
    """What this machine computes with. Raises UsageError when it cannot compute as asked."""
    device = resolve_device(config.device)
    return Worker(device=device, dtype=resolve_dtype(config.dtype, device), rank=rank, world=world)


def _run_on_ray(work: Work[ConfigT], config: ConfigT) -> None:
    with ray_session(config.address) as (ray, _):
        try:
            _fit(ray, work, config)
        except Exception as error:
            raise _expected_cause(error) from error


def _fit(ray: Any, work: Work[ConfigT], config: ConfigT) -> None:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = ray.cluster_resources()
    uses_gpu = config.device == "cuda" or (config.device == "auto" and resources.get("GPU", 0) > 0)
    cpus = float(resources.get("CPU", 1))
    threads = config.threads or max(int(cpus // config.workers), 1)
    per_worker: dict[str, float] = {"CPU": 1 if uses_gpu else min(threads, cpus / config.workers)}
    if uses_gpu:
        per_worker["GPU"] = 1
    # The workers' current folder may differ from ours.
    output = Path(config.output).resolve()
    shared = config.model_copy(update={"output": str(output), "threads": threads})
    trainer = TorchTrainer(
        _ray_loop,
        train_loop_config={"work": work, "config": shared},
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=uses_gpu, resources_per_worker=per_worker),
        run_config=RunConfig(storage_path=str(output / "ray"), name="train"),
    )
    with WorkersInterruption(output):
        trainer.fit()


def _ray_loop(arguments: dict[str, Any]) -> None:
    """What a Ray Train worker runs."""
    from ray import train

    from shared.cli.logs import configure_logs

    config, context = arguments["config"], train.get_context()
    configure_logs(config.log_format, config.log_level)
    torch.set_num_threads(config.threads)
    # The command that started the workers raises it again.
    with contextlib.suppress(KeyboardInterrupt):
        arguments["work"](config, _local_worker(config, context.get_world_rank(), context.get_world_size()))


def _expected_cause(error: BaseException) -> ExpectedError:
    """The ExpectedError that a worker raised, wherever Ray put it; else a ClusterError with Ray's last line."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ExpectedError):
            return one
        pending += [one.__cause__, getattr(one, "cause", None), *getattr(one, "worker_failures", {}).values()]
    lines = str(error).strip().splitlines()
    return ClusterError(f"a training worker failed: {lines[-1] if lines else type(error).__name__}")
