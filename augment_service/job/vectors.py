"""The word-vector actors: a group of `--glove-actors` on each node that has masked-LM actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from augment_service.config import RunConfig
from augment_service.job.model_facts import VectorFacts

NO_GROUP = -1


@dataclass(slots=True)
class _Group:
    """The vector actors of one node. `number` is unique, which distinguishes a group from the one it replaced."""

    number: int
    handles: list[Any]
    num_loading: int
    facts: VectorFacts | None = None


class VectorActors:
    """Starts, finds and drops groups. `calls`: Ray reference of each load call in progress -> its node."""

    def __init__(self, ray: Any, config: RunConfig) -> None:
        from augment_service.job.glove_actor import GloveWorker

        self._ray, self._config = ray, config
        self._actor_class = ray.remote(num_cpus=0, max_restarts=0)(GloveWorker)
        self._groups: dict[str, _Group] = {}
        self._num_started = 0
        self.calls: dict[Any, str] = {}

    @property
    def handles(self) -> list[Any]:
        """Ray handles of all vector actors."""
        return [handle for group in self._groups.values() for handle in group.handles]

    def start(self, node: str) -> None:
        """Start a group on the node if it has none."""
        if node in self._groups:
            return
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        config = self._config
        place = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        make = self._actor_class.options(scheduling_strategy=place).remote
        handles = [make(config.glove, config.glove_limit) for _ in range(config.glove_actors)]
        self._num_started += 1
        self._groups[node] = _Group(self._num_started, handles, len(handles))
        for handle in handles:
            self.calls[handle.load.remote()] = node

    def loaded(self, node: str, facts: VectorFacts) -> None:
        """One more actor of the node's current group has loaded."""
        group = self._groups[node]
        group.num_loading, group.facts = group.num_loading - 1, facts

    def facts_of(self, node: str) -> VectorFacts | None:
        """Facts of the node's vectors, once all actors of its group have loaded."""
        group = self._groups.get(node)
        return group.facts if group and not group.num_loading else None

    def pick(self, node: str, number: int) -> Any:
        """Vector-actor handle for the masked-LM actor with this number; balances them over the group."""
        handles = self._groups[node].handles
        return handles[number % len(handles)]

    def group_on(self, node: str) -> int:
        """Number of the node's current group, or NO_GROUP."""
        group = self._groups.get(node)
        return group.number if group else NO_GROUP

    def drop(self, node: str) -> bool:
        """End the node's group, after one of its actors died or failed; False if there was no group."""
        group = self._groups.pop(node, None)
        if group is None:
            return False
        for handle in group.handles:
            # An actor that hangs would keep its memory.
            self._ray.kill(handle)
        self.calls = {reference: other for reference, other in self.calls.items() if other != node}
        return True
