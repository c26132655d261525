"""One training worker in this process, or several through Ray Train.

Each worker runs the same function with its rank; gradients are summed in trainer.loop. One worker needs no Ray.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.errors import ClusterError, ExpectedError, UsageError
from trainer.checkpoint import read_result
from trainer.loop import Worker

logger = logging.getLogger(__name__)


Config = TypeVar("Config", bound=Any)
Work = Callable[[Config, Worker], None]


def run_workers(work: Work[Config], config: Config) -> None:
    """Call `work(config, worker)` here, or in each of --workers processes of Ray Train. Raises ExpectedError."""
    if config.workers == 1:
        if config.threads:
            torch.set_num_threads(config.threads)
        device = resolve_device(config.device)
        work(config, Worker(device, resolve_dtype(config.dtype, device)))
        return
    _run_on_ray(work, config)


def run_to_result(work: Work[Config], config: Config, folder: Path) -> dict[str, Any]:
    """The result in `folder`, the run's own: of this call, or of the one that finished before. Raises ExpectedError."""
    if read_result(folder) is None:
        run_workers(work, config)
    result = read_result(folder)
    if result is None:
        raise UsageError(f"{folder} has no result; run the command again")
    return result


def _run_on_ray(work: Work[Config], config: Config) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    address = os.environ.get("RAY_ADDRESS", "local") if config.address == "auto" else config.address
    try:
        ray.init(
            address=address, include_dashboard=False if address == "local" else None, logging_level=logging.WARNING
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"Ray at {address}: {str(error).splitlines()[0]}") from error
    try:
        resources = ray.cluster_resources()
        uses_gpu = config.device == "cuda" or (config.device == "auto" and resources.get("GPU", 0) > 0)
        cpus = float(resources.get("CPU", 1))
        threads = config.threads or max(int(cpus // config.workers), 1)
        per_worker: dict[str, float] = {"CPU": 1 if uses_gpu else min(threads, cpus / config.workers)}
        if uses_gpu:
            per_worker["GPU"] = 1
        # The driver may stand in another folder than the workers.
        shared = config.model_copy(update={"output": str(Path(config.output).resolve()), "threads": threads})
        trainer = TorchTrainer(
            _ray_loop,
            train_loop_config={"work": work, "config": shared},
            scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=uses_gpu, resources_per_worker=per_worker),
            run_config=RunConfig(storage_path=str(Path(config.output).resolve() / "ray"), name="train"),
        )
        trainer.fit()
    except Exception as error:
        raise _expected_cause(error) from error
    finally:
        ray.shutdown()


def _ray_loop(arguments: dict[str, Any]) -> None:
    """What a Ray Train worker runs."""
    from ray import train

    from shared.cli.logs import configure_logs

    config, context = arguments["config"], train.get_context()
    configure_logs(config.log_format, config.log_level)
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    worker = Worker(device, resolve_dtype(config.dtype, device), context.get_world_rank(), context.get_world_size())
    arguments["work"](config, worker)


def _expected_cause(error: BaseException) -> ExpectedError:
    """The ExpectedError that a worker raised, wherever Ray put it; or a ClusterError that says what happened."""
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
