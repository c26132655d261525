"""How many masked-LM actors fit on a cluster, and the resources that each reserves."""

from __future__ import annotations

from typing import Any

from augment_service.config import RunConfig
from augment_service.job.scheduler import IN_FLIGHT_PER_ACTOR
from shared.cli.progress import counted


def num_actors_wanted(ray: Any, config: RunConfig) -> int:
    """`--mlm-actors`, or as many as fit on the nodes currently alive; at least one."""
    if config.mlm_actors:
        return config.mlm_actors
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    if not _uses_gpu(ray, config):
        return max(sum(int(one.get("CPU", 0)) // config.mlm_threads for one in nodes), 1)
    # A fraction of a GPU must fit on one GPU, several GPUs on one node.
    if config.mlm_gpus < 1:
        return max(sum(int(one.get("GPU", 0)) * int(1 / config.mlm_gpus) for one in nodes), 1)
    return max(sum(int(one.get("GPU", 0) / config.mlm_gpus) for one in nodes), 1)


def actor_options(ray: Any, config: RunConfig, *, own_ray: bool) -> dict[str, Any]:
    """Ray options of a masked-LM actor. own_ray: whether Ray was started for this run alone, on this machine."""
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    if config.workers_per_gpu != "0" and (_uses_gpu(ray, config) or config.workers_per_gpu != "auto"):
        # Both of its shards concurrently: one begins while the last parts of the other are assembled and written.
        options["max_concurrency"] = IN_FLIGHT_PER_ACTOR
    if _uses_gpu(ray, config):
        return options | {"num_gpus": config.mlm_gpus, "num_cpus": 1 if config.mlm_gpus >= 1 else 0}
    cpus: float = config.mlm_threads
    if own_ray:
        # No node will ever join: if there are more actors than CPUs, share them instead of waiting forever.
        cpus = min(cpus, ray.cluster_resources().get("CPU", 1) / num_actors_wanted(ray, config))
    return options | {"num_cpus": cpus}


def places(ray: Any, config: RunConfig) -> set[str]:
    """Ids of the live nodes whose total resources are enough for a masked-LM actor."""
    if _uses_gpu(ray, config):
        wanted = {"GPU": config.mlm_gpus, "CPU": 1.0 if config.mlm_gpus >= 1 else 0.0}
    else:
        wanted = {"CPU": float(config.mlm_threads)}
    return {
        str(node["NodeID"])
        for node in ray.nodes()
        if node["Alive"] and all(node["Resources"].get(kind, 0) >= amount for kind, amount in wanted.items())
    }


def room(ray: Any, config: RunConfig) -> str:
    """The resources that an actor needs and those available, for a log line or an error."""
    gpus, cpus = _uses_gpu(ray, config), config.mlm_threads
    needs = f"{config.mlm_gpus:g} GPU" + (" and 1 CPU" if config.mlm_gpus >= 1 else "") if gpus else f"{cpus:g} CPU"
    free, total = ray.available_resources(), ray.cluster_resources()
    kinds = ("CPU", "GPU") if gpus else ("CPU",)
    have = ", ".join(f"{free.get(kind, 0):g} of {total.get(kind, 0):g} {kind}" for kind in kinds)
    nodes = sum(1 for node in ray.nodes() if node["Alive"])
    return f"a masked-LM actor needs {needs}; free on {counted(nodes, 'node')}: {have}"


def _uses_gpu(ray: Any, config: RunConfig) -> bool:
    if config.device == "auto":
        return bool(ray.cluster_resources().get("GPU", 0))
    return config.device == "cuda"
