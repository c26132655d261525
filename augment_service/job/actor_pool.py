"""The actors of a run: masked-LM actors where there is room, one set of vectors on each node that has some of them.

Ray is asked for as many actors as wanted, at once: those without room wait, which tells an autoscaler what is missing,
and a node that joins later takes them. An actor counts only when it has said that its model and its vectors are there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from augment_service.config import RunConfig
from shared.errors import ClusterError, ExpectedError, ManifestError

logger = logging.getLogger(__name__)

_IN_CREATION = "creation task"
DEATHS_PER_ACTOR, DEATHS_AT_LEAST = 4, 24
"""So many deaths without one shard committed or part survived in between end the run."""


@dataclass(slots=True)
class _Mlm:
    """A masked-LM actor. `node` is known when it was placed, `models` when it has loaded."""

    handle: Any
    node: str | None = None
    models: dict[str, Any] | None = None
    is_ready: bool = False


@dataclass(slots=True)
class _Glove:
    """The actors that hold the vectors on one node; `number` tells them from those that they replace."""

    number: int
    handles: list[Any]
    loading: int
    models: dict[str, Any] | None = None


class ActorPool:
    """Starts and replaces actors. Its calls in progress stand in `calls`; `settle` takes the answer of one.

    own_ray: whether Ray was started for this run alone, on this machine.
    check_models: called with what the first ready actors hold; raises ManifestError for another job.
    """

    def __init__(
        self,
        ray: Any,
        config: RunConfig,
        run: str,
        job: str,
        own_ray: bool,
        check_models: Callable[[dict[str, Any]], None],
    ) -> None:
        from augment_service.job.actors import MlmWorker
        from augment_service.job.glove_actor import GloveWorker

        self._ray, self._config, self._run, self._job = ray, config, run, job
        self._check_models = check_models
        self._mlm: dict[str, _Mlm] = {}
        self._glove: dict[str, _Glove] = {}
        self._made = self._refused = self._deaths = self._num_vectors = 0
        self.calls: dict[Any, tuple[str, str]] = {}
        self._mlm_class = ray.remote(**self._resources(own_ray))(MlmWorker)
        self._glove_class = ray.remote(num_cpus=0, max_restarts=0)(GloveWorker)

    @property
    def num_ready(self) -> int:
        """Actors that may be given work."""
        return sum(one.is_ready for one in self._mlm.values())

    @property
    def num_starting(self) -> int:
        """Actors that wait for room or load."""
        return len(self._mlm) - self.num_ready

    @property
    def num_nodes(self) -> int:
        """Nodes that actors were placed on."""
        return len({one.node for one in self._mlm.values() if one.node})

    def handle(self, name: str) -> Any:
        """Ray's handle of a masked-LM actor."""
        return self._mlm[name].handle

    def grow(self) -> None:
        """Ask for the actors that are wanted and not there: at the start, after deaths, when nodes have joined."""
        while len(self._mlm) < self._wanted():
            name = f"mlm-{self._made}"
            self._made += 1
            one = _Mlm(self._mlm_class.remote(self._config, self._run, self._job, name))
            self._mlm[name] = one
            self.calls[one.handle.where.remote()] = ("where", name)
            self.calls[one.handle.load.remote()] = ("load", name)

    def settle(self, reference: Any) -> list[str]:
        """Take the answer of a call; returns actors that became ready. Raises ExpectedError, ray's errors.

        A RayActorError of a masked-LM actor goes through: `lost` wants to hear of it.
        """
        kind, name = self.calls[reference]
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            del self.calls[reference]
            return self._refuse(name, error)
        except self._ray.exceptions.RayActorError as error:
            del self.calls[reference]
            if kind == "glove":
                self._replace_vectors(name, str(error))
                return []
            if _IN_CREATION in str(error) and not self.num_ready:
                raise ClusterError(f"a worker could not start: {_short(str(error))}") from error
            raise
        del self.calls[reference]
        if kind == "glove":
            return self._vectors_loaded(name, answer)
        if name not in self._mlm:
            return []
        if kind == "where":
            self._mlm[name].node = answer
            self._start_vectors(answer)
            self._mlm[name].handle.attach.remote(self._pick(answer, name))
            return []
        self._mlm[name].models = answer
        return self._ready_on(self._mlm[name].node or "")

    def lost(self, name: str, reason: str) -> None:
        """A masked-LM actor died. Raises ClusterError when actors only die."""
        one = self._mlm.pop(name, None)
        if one is None:
            return
        # "Unavailable" may only mean that it cannot be reached: it must not go on beside its successor.
        self._ray.kill(one.handle)
        self.calls = {ref: call for ref, call in self.calls.items() if call[1] != name}
        logger.warning("actor_lost", extra={"fields": {"lost": name, "reason": _short(reason)}})
        self._count_death(reason)

    def vectors_of(self, name: str) -> int:
        """Which vectors an actor asks: to be told to `vectors_lost`."""
        glove = self._glove.get(self._mlm[name].node or "")
        return glove.number if glove else -1

    def vectors_lost(self, name: str, number: int, reason: str) -> None:
        """An actor found its vectors dead; what it asked in vain may have been replaced since. Raises ClusterError."""
        node = self._mlm[name].node or ""
        if node in self._glove and self._glove[node].number == number:
            self._replace_vectors(node, reason)

    def _replace_vectors(self, node: str, reason: str) -> None:
        if self._glove.pop(node, None) is None:
            return
        self.calls = {ref: call for ref, call in self.calls.items() if call != ("glove", node)}
        logger.warning("vectors_lost", extra={"fields": {"node": node[:8], "reason": _short(reason)}})
        self._count_death(reason)
        users = [(name, one) for name, one in self._mlm.items() if one.node == node]
        if users:
            self._start_vectors(node)
            for name, one in users:
                one.handle.attach.remote(self._pick(node, name))

    def progressed(self) -> None:
        """A shard was committed, or a part survived: deaths so far were no pattern."""
        self._deaths = 0

    def dismiss(self) -> None:
        """End all actors."""
        for handle in [one.handle for one in self._mlm.values()] + [h for g in self._glove.values() for h in g.handles]:
            self._ray.kill(handle)

    def _start_vectors(self, node: str) -> None:
        if node in self._glove:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        count, config = self._config.glove_actors, self._config
        place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        handles = [self._glove_class.options(scheduling_strategy=place).remote() for _ in range(count)]
        self._num_vectors += 1
        self._glove[node] = _Glove(self._num_vectors, handles, count)
        for handle in handles:
            self.calls[handle.load.remote(config.glove, config.glove_limit)] = ("glove", node)

    def _pick(self, node: str, name: str) -> Any:
        handles = self._glove[node].handles
        return handles[int(name.rpartition("-")[2]) % len(handles)]

    def _vectors_loaded(self, node: str, models: dict[str, Any]) -> list[str]:
        glove = self._glove.get(node)
        if glove is None:
            return []
        glove.loading, glove.models = glove.loading - 1, models
        return self._ready_on(node)

    def _ready_on(self, node: str) -> list[str]:
        """Actors of a node that have now all they need, checked against the manifest."""
        glove = self._glove.get(node)
        if glove is None or glove.loading or glove.models is None:
            return []
        ready = []
        for name, one in list(self._mlm.items()):
            if one.node != node or one.models is None or one.is_ready:
                continue
            try:
                self._check_models({"mlm": one.models, "glove": glove.models})
            except ManifestError as error:
                if not self.num_ready:
                    raise
                self._leave_out(name, error)
                continue
            one.is_ready = True
            ready.append(name)
        return ready

    def _refuse(self, name: str, error: Any) -> list[str]:
        """An actor could not load. It ends the run unless others could, elsewhere."""
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if not isinstance(cause, ExpectedError):
            cause = ClusterError(f"a worker failed: {type(cause).__name__}: {str(cause).splitlines()[-1]}")
        if name in self._mlm and self.num_ready and self._refused < 8:
            self._leave_out(name, cause)
            return []
        raise cause from error

    def _leave_out(self, name: str, reason: Exception) -> None:
        """An actor that cannot take part stays where it is, idle, so that no other is put in the same place."""
        self._refused += 1
        self._mlm[name].models = None
        logger.warning("actor_left_out", extra={"fields": {"left_out": name, "reason": _short(str(reason))}})

    def _count_death(self, reason: str) -> None:
        self._deaths += 1
        if self._deaths > max(DEATHS_PER_ACTOR * self._wanted(), DEATHS_AT_LEAST):
            raise ClusterError(f"{self._deaths} actors died and none did a shard meanwhile; the last: {_short(reason)}")

    def _wanted(self) -> int:
        config = self._config
        if config.mlm_actors:
            return config.mlm_actors
        nodes = [one["Resources"] for one in self._ray.nodes() if one["Alive"]]
        if self._uses_gpu():
            # A share of a GPU fits in one GPU, several GPUs in one node.
            if config.mlm_gpus < 1:
                return max(sum(int(one.get("GPU", 0)) * int(1 / config.mlm_gpus) for one in nodes), 1)
            return max(sum(int(one.get("GPU", 0) / config.mlm_gpus) for one in nodes), 1)
        return max(sum(int(one.get("CPU", 0)) // config.mlm_threads for one in nodes), 1)

    def _uses_gpu(self) -> bool:
        if self._config.device == "auto":
            return bool(self._ray.cluster_resources().get("GPU", 0))
        return self._config.device == "cuda"

    def _resources(self, own_ray: bool) -> dict[str, Any]:
        options: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0, "scheduling_strategy": "SPREAD"}
        if self._uses_gpu():
            return options | {"num_gpus": self._config.mlm_gpus, "num_cpus": 1 if self._config.mlm_gpus >= 1 else 0}
        cpus: float = self._config.mlm_threads
        if own_ray:
            # No node will ever join: more actors than CPUs share them instead of waiting for ever.
            cpus = min(cpus, self._ray.cluster_resources().get("CPU", 1) / self._wanted())
        return options | {"num_cpus": cpus}


def _short(reason: str) -> str:
    """The line that says most, for a log: the first, or the last of what was raised while an actor was made."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1 if _IN_CREATION in lines[0] else 0][:300]
