"""One training worker in this process, or several through Ray Train.

Each worker runs the same function with its rank; gradients are summed in trainer.steps. One worker needs no Ray.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.compute.ray_session import ray_session
from shared.errors import ClusterError, ExpectedError, UsageError
from shared.storage.objects import is_remote
from trainer.config import GROWING, LoopConfig
from trainer.interruption import STOP, StopRequest, WorkersInterruption
from trainer.remote_run import RemoteRun
from trainer.result import RunResult, read_result
from trainer.run_folder import KEEPS_STAGES, open_run
from trainer.state import Worker

ConfigT = TypeVar("ConfigT", bound=LoopConfig)
Work = Callable[[ConfigT, Worker], None]

FIRST = "-first"
"""Suffix of the first worker's scratch folder: that worker may run on the command's own machine."""
LOCK_SECONDS = 60.0
"""Time that the workers of a killed command get to exit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """A run ready to start. path: its folder on this machine; output: --output, where the results will be."""

    path: Path
    output: str
    remote: RemoteRun | None = None

    @property
    def model(self) -> str:
        """Path or URI of the finished model."""
        return str(self.path / "model") if self.remote is None else f"{self.remote.uri}/model"


@contextlib.contextmanager
def start_run(command: str, config: LoopConfig, runtime: Mapping[str, Any] | None = None) -> Iterator[OpenRun]:
    """Open the run's folder, if this machine has the requested device and precision. Raises ExpectedError.

    runtime: options that `config.json` records without checking them.
    """
    recorded = {"name": config.name, KEEPS_STAGES: True} | dict(runtime or {})
    if config.workers == 1:
        _local_worker(config)
    if not is_remote(config.output):
        path = open_run(config.output, command, config.identity(), recorded, GROWING)
        yield OpenRun(path=path, output=config.output)
        return
    remote = RemoteRun(config.output)
    try:
        # Of several workers the first one takes the run over, wherever it is.
        begin = remote.open if config.workers == 1 else remote.check
        begin(command, config.identity(), recorded, GROWING)
        yield OpenRun(path=remote.path, output=config.output, remote=remote)
    finally:
        remote.close()


def run_to_result(work: Work[ConfigT], config: ConfigT, run: OpenRun) -> RunResult:
    """The result of this call, or of an earlier one that finished. Raises ExpectedError."""
    if read_result(run.path) is None:
        run_workers(work, config.model_copy(update={"output": str(run.path)}), run.remote)
    result = read_result(run.path)
    if result is None:
        raise UsageError(f"{run.output} has no result; run the command again")
    return result


def run_workers(work: Work[ConfigT], config: ConfigT, remote: RemoteRun | None = None) -> None:
    """Call `work(config, worker)` here, or in each of --workers processes of Ray Train. Raises ExpectedError.

    remote: publishes the checkpoints and the results, if --output is not on this machine.
    """
    if config.workers > 1:
        _run_on_ray(work, config, None if remote is None else remote.uri)
        if remote is not None:
            remote.fetch_result()
        return
    if config.threads:
        torch.set_num_threads(config.threads)
    worker = _local_worker(config)
    if remote is None:
        work(config, worker)
        return
    work(config, replace(worker, remote=remote, uri=remote.uri))
    remote.finish()


def _local_worker(config: LoopConfig, rank: int = 0, world: int = 1) -> Worker:
    """This machine's worker. Raises UsageError when it lacks the requested device or precision."""
    device = resolve_device(config.device)
    return Worker(device=device, dtype=resolve_dtype(config.dtype, device), rank=rank, world=world)


def _run_on_ray(work: Work[ConfigT], config: ConfigT, uri: str | None) -> None:
    with ray_session(config.address) as (ray, is_private):
        try:
            _fit(ray, work, config, uri, is_private)
        except Exception as error:
            raise _expected_cause(error, config.workers) from error


def _fit(ray: Any, work: Work[ConfigT], config: ConfigT, uri: str | None, is_private: bool) -> None:
    from ray.train import LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    class Trainer(TorchTrainer):  # type: ignore[misc]
        """On a private Ray, without the monitor that frees a cluster's resources when the controller dies.

        It would print every second that it cannot ask for the controller's state.
        """

        def _create_default_callbacks(self) -> list[Any]:
            made: list[Any] = super()._create_default_callbacks()
            return [one for one in made if not (is_private and type(one).__name__ == "PlacementGroupCleanerCallback")]

    if is_private:
        # The watcher of nodes that a cluster is about to lose; its start prints an error of Ray.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")

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
    stop = None if uri is None else ray.remote(num_cpus=0)(StopRequest).remote()
    trainer = Trainer(
        _ray_loop,
        train_loop_config={"work": work, "config": shared, "uri": uri, "stop": stop},
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=uses_gpu, resources_per_worker=per_worker),
        # Ray Train would print the traceback of an error that this command reports in one line.
        run_config=RunConfig(
            storage_path=str(output / "ray"), name="train", logging_config=LoggingConfig(log_level="CRITICAL")
        ),
    )
    with WorkersInterruption(output, None if stop is None else stop.make.remote):
        _in_thread(trainer.fit)


def _in_thread(work: Callable[[], object]) -> None:
    """Call `work()` and wait for it, while this thread handles signals.

    In the main thread, Ray Train would handle SIGINT itself: it ends the workers before they have saved anything.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="ray-train", daemon=True).start()
    outcome.result()


def _ray_loop(arguments: dict[str, Any]) -> None:
    """What a Ray Train worker runs."""
    from ray import train

    from shared.cli.logs import configure_logs

    config, uri, context = arguments["config"], arguments["uri"], train.get_context()
    configure_logs(config.log_format, config.log_level)
    torch.set_num_threads(config.threads)
    worker = replace(_local_worker(config, context.get_world_rank(), context.get_world_size()), uri=uri)
    # The command that started the workers raises it again.
    with contextlib.suppress(KeyboardInterrupt):
        if uri is None or worker.rank > 0:
            arguments["work"](config, worker)
        else:
            _publish(arguments["work"], config, worker, arguments["stop"])


def _publish(work: Work[ConfigT], config: ConfigT, worker: Worker, stop: Any) -> None:
    """The first worker's part of a run in an object store: it alone reads and writes there. stop: the actor."""
    remote = RemoteRun(str(worker.uri), FIRST, LOCK_SECONDS)
    try:
        remote.take_over()
        threading.Thread(target=_wait_for_stop, args=(stop, remote.path), daemon=True).start()
        work(config.model_copy(update={"output": str(remote.path)}), replace(worker, remote=remote))
        remote.finish()
    finally:
        remote.close()


def _wait_for_stop(stop: Any, folder: Path) -> None:
    import ray

    # The actor ends with the command.
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(stop.wait.remote())
        (folder / STOP).touch()


def _expected_cause(error: BaseException, num_workers: int) -> ExpectedError:
    """The ExpectedError that a worker raised, wherever Ray put it; else a ClusterError that says what happened."""
    pending: list[Any] = [error]
    seen: set[int] = set()
    lost: dict[int, bool] = {}
    while pending:
        one = pending.pop()
        if not isinstance(one, BaseException) or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, ExpectedError):
            return one
        failures: Mapping[int, Any] = getattr(one, "worker_failures", {})
        lost |= {rank: _is_death(failure) for rank, failure in failures.items()}
        pending += [one.__cause__, getattr(one, "cause", None), *failures.values()]
    dead = sorted(rank for rank, is_dead in lost.items() if is_dead)
    again = "run the same command again to resume from the last checkpoint"
    if dead:
        ranks = ", ".join(str(rank) for rank in dead)
        return ClusterError(
            f"worker {ranks} of {num_workers} (counting from 0) died: it was killed, ran out of memory, or its node "
            f"failed; {again}"
        )
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if any(sign in last for sign in _LOST_CONNECTION):
        return ClusterError(f"a worker lost its connection to another one, which probably died; {again}")
    return ClusterError(f"a training worker failed: {last}")


_LOST_CONNECTION = ("Connection reset by peer", "Connection closed by peer", "Broken pipe", "remote process exited")


def _is_death(failure: object) -> bool:
    """Whether a worker failed because its process died, however Ray wrapped the error."""
    from ray.exceptions import RayActorError

    return isinstance(failure, RayActorError) or isinstance(
        getattr(failure, "health_check_failure", None), RayActorError
    )
