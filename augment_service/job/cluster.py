"""How many masked-LM actors a cluster has room for, and what each of them reserves."""

from __future__ import annotations

from typing import Any

from augment_service.config import RunConfig


def num_actors_wanted(ray: Any, config: RunConfig) -> int:
    """`--mlm-actors`, or as many as fit on the nodes that are alive now; at least one."""
    if config.mlm_actors:
        return config.mlm_actors
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    if not _uses_gpu(ray, config):
        return max(sum(int(one.get("CPU", 0)) // config.mlm_threads for one in nodes), 1)
    # A share of a GPU has to fit in one GPU, several GPUs in one node.
    if config.mlm_gpus < 1:
        return max(sum(int(one.get("GPU", 0)) * int(1 / config.mlm_gpus) for one in nodes), 1)
    return max(sum(int(one.get("GPU", 0) / config.mlm_gpus) for one in nodes), 1)


def actor_options(ray: Any, config: RunConfig, *, own_ray: bool) -> dict[str, Any]:
    """Ray options of a masked-LM actor. own_ray: whether Ray was started for this run alone, on this machine."""
    options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
    if _uses_gpu(ray, config):
        return options | {"num_gpus": config.mlm_gpus, "num_cpus": 1 if config.mlm_gpus >= 1 else 0}
    cpus: float = config.mlm_threads
    if own_ray:
        # No node will ever join: if there are more actors than CPUs, they share them instead of waiting forever.
        cpus = min(cpus, ray.cluster_resources().get("CPU", 1) / num_actors_wanted(ray, config))
    return options | {"num_cpus": cpus}


def _uses_gpu(ray: Any, config: RunConfig) -> bool:
    if config.device == "auto":
        return bool(ray.cluster_resources().get("GPU", 0))
    return config.device == "cuda"
