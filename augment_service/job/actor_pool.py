"""The actors of a run: starts masked-LM and vector actors, tracks which are ready, replaces dead ones.

All actors are requested from Ray at once. Those without room stay pending, which signals the demand to an autoscaler,
and are placed on nodes that join later. An actor is ready only once it and the vectors on its node have loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from augment_service.config import RunConfig
from augment_service.job.cluster import actor_options, num_actors_wanted, places, room
from augment_service.job.failures import cause_of, died_in_creation, expected_error, is_rays_own, short_reason
from augment_service.job.model_facts import MlmFacts, models_facts
from augment_service.job.stalls import LoadWatch
from augment_service.job.vectors import NO_GROUP, VectorActors
from shared.cli.progress import counted, format_seconds
from shared.errors import ClusterError, ExpectedError, ManifestError, ModelError, UsageError

logger = logging.getLogger(__name__)

DEATHS_PER_ACTOR, DEATHS_AT_LEAST = 4, 24
"""More deaths than this without a committed shard or a surviving part in between end the run."""
NODES_TO_BLAME_THE_JOB = 2
"""If this many nodes reject a model or an option, every node is assumed to."""


@dataclass(slots=True)
class _MlmActor:
    """A masked-LM actor. `node` is set once it is placed, `facts` once it has loaded."""

    handle: Any
    number: int
    node: str = ""
    facts: MlmFacts | None = None
    is_ready: bool = False
    is_left_out: bool = False


class _Question(Enum):
    """The calls to a masked-LM actor during its start."""

    WHERE = "where"
    LOAD = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """A call in progress to a masked-LM actor."""

    actor: str
    question: _Question


class ActorPool:
    """The actors of a run. The driver waits for `pending` and passes each answered reference to `settle`.

    own_ray: whether Ray was started for this run alone, on this machine.
    check_models: called with the manifest's `models` entry of each actor that has loaded; returns the job's tokens per
        model batch, and raises ManifestError if the job was started with other models.
    batch_tokens: from an earlier run of the job, else as returned by `check_models`; None before the first actor is
        ready. The same for every actor: one that loads later gets this value instead of measuring its own.
    """

    def __init__(
        self,
        *,
        ray: Any,
        config: RunConfig,
        run: str,
        job: str,
        own_ray: bool,
        check_models: Callable[[dict[str, Any]], int],
        batch_tokens: int | None = None,
    ) -> None:
        from augment_service.job.actors import MlmWorker

        self._ray, self._config, self._run, self._job = ray, config, run, job
        self._check_models, self.batch_tokens = check_models, batch_tokens
        self._actors: dict[str, _MlmActor] = {}
        self._calls: dict[Any, _Call] = {}
        self._vectors = VectorActors(ray, config)
        self._loads: LoadWatch[str] = LoadWatch(config.stall_seconds)
        self._vector_loads: LoadWatch[tuple[str, int]] = LoadWatch(config.stall_seconds)
        self._refusals: dict[str, ExpectedError] = {}
        self._num_started = self._deaths_in_a_row = 0
        self._actor_class = ray.remote(**actor_options(ray, config, own_ray=own_ray))(MlmWorker)

    @property
    def pending(self) -> list[Any]:
        """References of the calls in progress."""
        return [*self._calls, *self._vectors.calls]

    @property
    def num_ready(self) -> int:
        """Actors that can take work."""
        return sum(one.is_ready for one in self._actors.values())

    @property
    def num_starting(self) -> int:
        """Actors that are pending or loading."""
        return len(self._actors) - self.num_ready - self._num_left_out

    @property
    def _num_left_out(self) -> int:
        return sum(one.is_left_out for one in self._actors.values())

    @property
    def waits_for(self) -> str:
        """Why no actor is ready, for a message: no room or still loading, and any excluded nodes."""
        num_placed = sum(bool(one.node) for one in self._actors.values() if not one.is_left_out)
        num_waiting = self.num_starting - num_placed
        parts = [f"{counted(num_placed, 'actor')} loading"] if num_placed else []
        parts += [f"{counted(num_waiting, 'actor')} waiting for resources"] if num_waiting else []
        if self._refusals:
            parts.append(f"{counted(len(self._refusals), 'node')} excluded ({next(iter(self._refusals.values()))})")
        return "; ".join([*parts, room(self._ray, self._config)])

    @property
    def num_nodes(self) -> int:
        """Nodes with at least one masked-LM actor."""
        return len({one.node for one in self._actors.values() if one.node})

    def handle(self, name: str) -> Any:
        """Ray's handle of a masked-LM actor."""
        return self._actors[name].handle

    def grow(self) -> None:
        """Start the missing actors: all of them at first, later after deaths and when nodes have joined."""
        # Excluded actors keep their places; with a fixed number of actors, replacements are needed elsewhere.
        spare = self._num_left_out if self._config.mlm_actors else 0
        while len(self._actors) < num_actors_wanted(self._ray, self._config) + spare:
            number = self._num_started
            name = f"mlm-{number}"
            self._num_started += 1
            one = _MlmActor(self._actor_class.remote(self._config, self._run, self._job, name), number)
            self._actors[name] = one
            self._calls[one.handle.where.remote()] = _Call(actor=name, question=_Question.WHERE)

    def settle(self, reference: Any) -> list[str]:
        """Handle the result of a pending call; returns the names of the actors that became ready.

        A dead actor is replaced, so Ray's errors do not propagate. A reference whose actor was replaced in the meantime
        gives []. A node is excluded if its actor or vectors cannot be loaded or differ from those that the job was
        started with. Two kinds of errors propagate and end the run:
        - the ExpectedError of such a node when no actor is ready and no other node can help: every node has failed, or
          two have, with an error in the models or options;
        - ClusterError if the first actors cannot be created, or if actors keep dying.
        """
        if call := self._calls.pop(reference, None):
            return self._settle_actor(reference, call)
        if node := self._vectors.calls.pop(reference, None):
            return self._settle_vectors(reference, node)
        return []

    def lost(self, name: str, reason: str) -> None:
        """A masked-LM actor died: start another. Raises ClusterError when actors keep dying."""
        one = self._actors.pop(name, None)
        self._loads.ended(name, is_done=False)
        if one is None:
            return
        # "Unavailable" may only mean unreachable: it must not keep working alongside its successor.
        self._ray.kill(one.handle)
        self._calls = {reference: call for reference, call in self._calls.items() if call.actor != name}
        logger.warning("actor_lost", extra={"fields": {"lost": name, "reason": short_reason(reason)}})
        self._count_death(reason)
        self.grow()

    def end_stalled(self) -> None:
        """Replace actors and vectors whose load hangs. Raises ClusterError when actors keep dying."""
        for name, seconds in self._loads.look():
            self.lost(name, f"it was still loading after {format_seconds(seconds)} (--stall-seconds)")
        for (node, group), seconds in self._vector_loads.look():
            self._vector_loads.ended((node, group), is_done=False)
            if self._vectors.group_on(node) == group:
                self._replace_vectors(
                    node, f"they were still loading after {format_seconds(seconds)} (--stall-seconds)"
                )

    def vectors_of(self, name: str) -> int:
        """Number of the vector-actor group that a masked-LM actor currently uses, for `vectors_lost`."""
        return self._vectors.group_on(self._actors[name].node)

    def vectors_lost(self, name: str, group: int, reason: str) -> None:
        """An actor found this group of vector actors dead: replace it, if it has not been replaced yet.

        Raises ClusterError when actors keep dying.
        """
        node = self._actors[name].node
        if group != NO_GROUP and self._vectors.group_on(node) == group:
            self._replace_vectors(node, reason)

    def progressed(self) -> None:
        """A shard was committed or a part survived: reset the count of deaths."""
        self._deaths_in_a_row = 0

    def dismiss(self) -> None:
        """Kill all actors."""
        for handle in [*(one.handle for one in self._actors.values()), *self._vectors.handles]:
            self._ray.kill(handle)

    def _settle_actor(self, reference: Any, call: _Call) -> list[str]:
        one = self._actors[call.actor]
        try:
            answer = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if _is_our_own(self._ray, error):
                self._refuse([one], one.node, expected_error(cause_of(error)))
            elif died_in_creation(str(error)) and not self.num_ready:
                raise ClusterError(f"a worker could not start: {short_reason(str(error))}") from error
            else:
                self.lost(call.actor, str(error))
            return []
        if call.question is _Question.WHERE:
            one.node = answer
            self._loads.began(call.actor)
            # Only now: it may have been pending until the batch size was known.
            loading = one.handle.load.remote(self.batch_tokens)
            self._calls[loading] = _Call(actor=call.actor, question=_Question.LOAD)
            self._start_vectors(answer)
            one.handle.attach.remote(self._vectors.pick(answer, one.number))
            return []
        one.facts = answer
        self._loads.ended(call.actor, is_done=True)
        return self._ready_on(one.node)

    def _settle_vectors(self, reference: Any, node: str) -> list[str]:
        try:
            facts = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            if not _is_our_own(self._ray, error):
                self._replace_vectors(node, str(error))
                return []
            self._vector_loads.ended((node, self._vectors.group_on(node)), is_done=False)
            self._vectors.drop(node)
            users = [one for one in self._actors.values() if one.node == node and not one.is_left_out]
            for one in users:
                if one.is_ready:
                    # It is working or idle without vectors. The driver finds out from its next call.
                    self._ray.kill(one.handle)
            self._refuse([one for one in users if not one.is_ready], node, expected_error(cause_of(error)))
            return []
        self._vectors.loaded(node, facts)
        if self._vectors.facts_of(node) is not None:
            self._vector_loads.ended((node, self._vectors.group_on(node)), is_done=True)
        return self._ready_on(node)

    def _ready_on(self, node: str) -> list[str]:
        """Actors on a node that have become ready, checked against the manifest."""
        vectors = self._vectors.facts_of(node)
        if vectors is None:
            return []
        ready = []
        for name, one in self._actors.items():
            if one.node != node or one.facts is None or one.is_ready or one.is_left_out:
                continue
            try:
                self.batch_tokens = self._check_models(models_facts(one.facts, vectors))
            except ManifestError as error:
                self._refuse([one], node, error)
                continue
            one.is_ready = True
            self._refusals.pop(node, None)
            ready.append(name)
        return ready

    def _refuse(self, actors: list[_MlmActor], node: str, reason: ExpectedError) -> None:
        """Exclude actors. They stay in place, idle, so that no others are started there."""
        self._refusals[node] = reason
        for one in actors:
            one.is_left_out = True
            self._loads.ended(f"mlm-{one.number}", is_done=False)
            fields = {"left_out": f"mlm-{one.number}", "node": node[:8], "reason": short_reason(str(reason))}
            logger.warning("actor_left_out", extra={"fields": fields})
        if self.num_ready:
            return
        is_hopeless = not places(self._ray, self._config) - {*self._refusals}
        if isinstance(reason, (UsageError, ModelError, ManifestError)):
            num_alike = sum(type(one) is type(reason) for one in self._refusals.values())
            ends_run = is_hopeless or num_alike >= NODES_TO_BLAME_THE_JOB
        else:
            # Perhaps only one of several GPUs failed: wait for the node's other actors.
            ends_run = is_hopeless and not any(one.node and not one.is_left_out for one in self._actors.values())
        if ends_run:
            raise reason

    def _replace_vectors(self, node: str, reason: str) -> None:
        self._vector_loads.ended((node, self._vectors.group_on(node)), is_done=False)
        if not self._vectors.drop(node):
            return
        logger.warning("vectors_lost", extra={"fields": {"node": node[:8], "reason": short_reason(reason)}})
        self._count_death(reason)
        users = [one for one in self._actors.values() if one.node == node]
        if not any(one["NodeID"] == node and one["Alive"] for one in self._ray.nodes()):
            # The node is gone; the deaths of its actors are reported separately.
            return
        if users:
            self._start_vectors(node)
        for one in users:
            one.handle.attach.remote(self._vectors.pick(node, one.number))

    def _start_vectors(self, node: str) -> None:
        """Start vector actors on a node that has none."""
        if self._vectors.group_on(node) == NO_GROUP:
            self._vectors.start(node)
            self._vector_loads.began((node, self._vectors.group_on(node)))

    def _count_death(self, reason: str) -> None:
        self._deaths_in_a_row += 1
        if self._deaths_in_a_row > max(DEATHS_PER_ACTOR * num_actors_wanted(self._ray, self._config), DEATHS_AT_LEAST):
            raise ClusterError(
                f"{self._deaths_in_a_row} actors died in a row, and no shard was finished in between; the last reason: "
                f"{short_reason(reason)}"
            )


def _is_our_own(ray: Any, error: Any) -> bool:
    """Whether an error was raised by our code in a worker, so that another attempt there would raise it again."""
    return isinstance(error, ray.exceptions.RayTaskError) and not is_rays_own(ray, error)
