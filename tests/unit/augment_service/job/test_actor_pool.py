"""The actor pool with a stub of Ray: when actors are ready, replaced or left out, and which errors end the run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import ray

from augment_service.config import RunConfig
from augment_service.job.actor_pool import DEATHS_AT_LEAST, ActorPool
from augment_service.job.model_facts import MlmFacts, VectorFacts
from augment_service.job.stalls import AWAY_SECONDS
from shared.errors import ClusterError, ExpectedError, ManifestError, ModelError
from tests.support.ray_errors import every_ray_error, raised

MLM = MlmFacts(
    fingerprint="m",
    device="cpu",
    arithmetic=2,
    hardware="x",
    dtype="float32",
    batch_tokens=1024,
    torch="2",
    transformers="5",
)
VECTORS = VectorFacts(fingerprint="v", words=3)
NODE, OTHER_NODE = "1" * 56, "2" * 56


@dataclass(eq=False)
class Reference:
    """A call in progress."""

    handle: Any
    method: str
    arguments: tuple[Any, ...]

    @property
    def what(self) -> tuple[str, str]:
        return self.handle.kind, self.method


@dataclass(eq=False)
class Handle:
    """STUB of an actor handle: `handle.method.remote(…)` gives a Reference."""

    kind: str

    def __getattr__(self, method: str) -> Any:
        return Remote(lambda *arguments: Reference(self, method, arguments))


@dataclass
class Remote:
    """Whatever has a method `remote`."""

    remote: Any

    def options(self, **_: Any) -> Remote:
        return self


@dataclass
class StubRay:
    """STUB of Ray with one CPU per node: the test sets what each call answers or raises."""

    num_nodes: int = 1
    answers: dict[Reference, Any] = field(default_factory=dict)
    killed: list[Handle] = field(default_factory=list)
    exceptions: Any = ray.exceptions

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Reference]]:
        return [one for one in references if one in self.answers], []

    def remote(self, **_: Any) -> Any:
        return lambda actor_class: Remote(lambda *_: Handle(actor_class.__name__))

    def nodes(self) -> list[dict[str, Any]]:
        ids = (str(number) * 56 for number in range(1, self.num_nodes + 1))
        return [{"NodeID": one, "Alive": True, "Resources": {"CPU": 1}} for one in ids]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.num_nodes)}

    def available_resources(self) -> dict[str, float]:
        return {}

    def get(self, reference: Reference) -> Any:
        answer = self.answers[reference]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def kill(self, handle: Handle) -> None:
        self.killed.append(handle)


class World:
    """A pool on a stub of Ray. `answer` settles the oldest pending call of a kind."""

    def __init__(self, num_actors: int = 1, known_batch_tokens: int | None = None, **options: Any) -> None:
        self.ray = StubRay(num_actors)
        self.refused_models: list[str] = []
        self.checked: list[dict[str, Any]] = []
        self.pool = ActorPool(
            ray=self.ray,
            config=RunConfig(input=("x",), output="o", text_column=("t",), **options),
            run="r",
            job="j",
            own_ray=False,
            check_models=self.check,
            batch_tokens=known_batch_tokens,
        )
        self.pool.grow()

    def check(self, models: dict[str, Any]) -> int:
        self.checked.append(models)
        if models["mlm"]["fingerprint"] in self.refused_models:
            raise ManifestError("other models")
        return int(self.checked[0]["mlm"]["batch_tokens"])

    def pending(self, kind: str, method: str) -> list[Any]:
        return [one for one in self.pool.pending if one.what == (kind, method)]

    def answer(self, kind: str, method: str, answer: Any) -> list[str]:
        reference = self.pending(kind, method)[0]
        self.ray.answers[reference] = answer
        return self.pool.settle(reference)

    def start_one(self, node: str = NODE) -> list[str]:
        self.answer("MlmWorker", "where", node)
        while self.pending("GloveWorker", "load"):
            self.answer("GloveWorker", "load", VECTORS)
        return self.answer("MlmWorker", "load", MLM)


def died() -> Exception:
    error: Exception = ray.exceptions.RayActorError()
    return error


@pytest.mark.parametrize("vectors_first", [True, False])
def test_an_actor_is_ready_when_it_and_the_vectors_on_its_node_have_loaded(vectors_first: bool) -> None:
    world = World()
    assert world.answer("MlmWorker", "where", NODE) == []
    calls = [("GloveWorker", VECTORS), ("MlmWorker", MLM)]
    first, second = calls if vectors_first else calls[::-1]
    assert world.answer(first[0], "load", first[1]) == []
    assert world.pool.num_ready == 0
    assert world.answer(second[0], "load", second[1]) == ["mlm-0"]
    assert (world.pool.num_ready, world.pool.num_starting, world.pool.num_nodes) == (1, 0, 1)
    assert world.pool.pending == []
    (models,) = world.checked
    assert models["glove"] == {"fingerprint": "v", "words": 3}
    names = ["fingerprint", "device", "arithmetic", "hardware", "dtype", "torch", "transformers", "batch_tokens"]
    assert list(models["mlm"]) == names
    assert world.pool.batch_tokens == 1024


def test_all_actors_use_the_batches_that_the_first_one_measured() -> None:
    world = World(2)
    assert world.start_one() == ["mlm-0"]
    assert world.answer("MlmWorker", "where", NODE) == []
    assert world.answer("MlmWorker", "load", replace(MLM, batch_tokens=4096)) == ["mlm-1"]
    assert [one["mlm"]["batch_tokens"] for one in world.checked] == [1024, 4096]
    assert world.pool.batch_tokens == 1024


def test_only_actors_that_load_before_the_first_is_ready_measure_batches() -> None:
    world = World(3)
    for _ in range(2):
        world.answer("MlmWorker", "where", NODE)
    assert [one.arguments for one in world.pending("MlmWorker", "load")] == [(None,), (None,)]
    world.answer("GloveWorker", "load", VECTORS)
    for _ in range(2):
        world.answer("MlmWorker", "load", MLM)
    # It has waited for room since the start, and the next one replaces a dead one.
    world.answer("MlmWorker", "where", NODE)
    world.pool.lost("mlm-0", "killed")
    world.answer("MlmWorker", "where", NODE)
    assert [one.arguments for one in world.pending("MlmWorker", "load")] == [(1024,), (1024,)]


def test_no_actor_of_a_resumed_job_measures_batches() -> None:
    world = World(known_batch_tokens=512)
    world.answer("MlmWorker", "where", NODE)
    assert [one.arguments for one in world.pending("MlmWorker", "load")] == [(512,)]


def test_an_actor_that_dies_while_starting_is_replaced_and_its_other_answer_ignored() -> None:
    world = World()
    (first,) = world.pending("MlmWorker", "where")
    world.answer("MlmWorker", "where", NODE)
    (other,) = world.pending("MlmWorker", "load")
    world.pool.lost("mlm-0", "killed")
    assert world.ray.killed == [first.handle]
    assert world.pool.settle(other) == []
    assert world.start_one() == ["mlm-1"]


def test_vectors_that_die_are_replaced_once_however_many_actors_notice() -> None:
    world = World(2)
    assert world.start_one() + world.start_one() == ["mlm-0", "mlm-1"]
    groups = [world.pool.vectors_of(name) for name in ("mlm-0", "mlm-1")]
    world.pool.vectors_lost("mlm-0", groups[0], "died")
    world.pool.vectors_lost("mlm-1", groups[1], "died")
    assert len(world.pending("GloveWorker", "load")) == 1
    assert world.answer("GloveWorker", "load", VECTORS) == []
    assert world.pool.num_ready == 2


def test_an_error_while_loading_ends_the_run_with_its_own_type_while_no_actor_is_ready() -> None:
    world = World()
    world.answer("MlmWorker", "where", NODE)
    with pytest.raises(ModelError, match="no such model"):
        world.answer("MlmWorker", "load", raised(ModelError("no such model")))


def test_an_unexpected_error_while_loading_is_a_cluster_error() -> None:
    world = World()
    world.answer("MlmWorker", "where", NODE)
    with pytest.raises(ClusterError, match="a worker failed: KeyError: 'x'"):
        world.answer("MlmWorker", "load", raised(KeyError("x")))


def test_an_error_while_loading_vectors_ends_the_run_of_one_node() -> None:
    world = World()
    world.answer("MlmWorker", "where", NODE)
    with pytest.raises(ModelError, match="no vectors"):
        world.answer("GloveWorker", "load", raised(ModelError("no vectors")))


def test_a_node_whose_vectors_cannot_be_loaded_is_left_out() -> None:
    world = World(2)
    assert world.start_one() == ["mlm-0"]
    world.answer("MlmWorker", "where", OTHER_NODE)
    assert world.answer("GloveWorker", "load", raised(ModelError("no vectors"))) == []
    assert world.answer("MlmWorker", "load", MLM) == []
    assert (world.pool.num_ready, world.pool.num_starting) == (1, 0)


def test_ready_actors_whose_vectors_cannot_be_loaded_again_are_ended() -> None:
    world = World(2)
    assert world.start_one() + world.start_one(OTHER_NODE) == ["mlm-0", "mlm-1"]
    world.pool.vectors_lost("mlm-1", world.pool.vectors_of("mlm-1"), "died")
    world.answer("GloveWorker", "load", raised(ModelError("no vectors")))
    assert world.pool.handle("mlm-1") in world.ray.killed
    assert world.pool.handle("mlm-0") not in world.ray.killed


@pytest.mark.parametrize("error", [ClusterError("no GPU"), ModelError("no file"), KeyError("x")])
def test_one_bad_node_is_left_out_however_fast_it_fails(error: Exception) -> None:
    world = World(3)
    assert world.answer("MlmWorker", "where", NODE) == []
    assert world.answer("MlmWorker", "load", raised(error)) == []
    assert "1 node excluded" in world.pool.waits_for
    assert world.start_one(OTHER_NODE) == ["mlm-1"]
    assert world.pool.num_ready == 1


def test_a_model_that_two_nodes_refuse_ends_the_run_but_other_errors_only_when_all_have_failed() -> None:
    world = World(3)
    world.answer("MlmWorker", "where", NODE)
    world.answer("MlmWorker", "load", raised(ModelError("no file")))
    world.answer("MlmWorker", "where", OTHER_NODE)
    with pytest.raises(ModelError, match="no file"):
        world.answer("MlmWorker", "load", raised(ModelError("no file")))
    world = World(3)
    for node in (NODE, OTHER_NODE):
        world.answer("MlmWorker", "where", node)
        world.answer("MlmWorker", "load", raised(RuntimeError("no GPU")))
    world.answer("MlmWorker", "where", "3" * 56)
    with pytest.raises(ClusterError, match="no GPU"):
        world.answer("MlmWorker", "load", raised(RuntimeError("no GPU")))


def test_one_bad_gpu_of_a_node_is_left_out() -> None:
    world = World(1)
    world.ray.num_nodes = 2
    world.pool.grow()
    world.ray.num_nodes = 1
    for _ in range(2):
        world.answer("MlmWorker", "where", NODE)
    assert world.answer("MlmWorker", "load", raised(RuntimeError("bad GPU"))) == []
    world.answer("GloveWorker", "load", VECTORS)
    assert world.answer("MlmWorker", "load", MLM) == ["mlm-1"]


def test_with_a_fixed_number_of_actors_others_are_started_in_place_of_those_left_out() -> None:
    world = World(3, mlm_actors=1)
    world.answer("MlmWorker", "where", NODE)
    world.answer("MlmWorker", "load", raised(ModelError("no file")))
    world.pool.grow()
    assert world.start_one(OTHER_NODE) == ["mlm-1"]
    world.pool.grow()
    assert world.pool.pending == []


@pytest.mark.parametrize("method", ["where", "load"])
@pytest.mark.parametrize("is_wrapped", [False, True])
def test_whatever_ray_says_about_a_lost_actor_it_is_replaced(method: str, is_wrapped: bool) -> None:
    errors = every_ray_error()
    assert len(errors) > 25
    for error in errors:
        for kind, name in (("MlmWorker", "mlm-1"), ("GloveWorker", "mlm-0")):
            world = World()
            if kind == "GloveWorker" or method == "load":
                world.answer("MlmWorker", "where", NODE)
            answer = raised(error) if is_wrapped else error
            world.answer(kind, method if kind == "MlmWorker" else "load", answer)
            if kind == "GloveWorker":
                world.answer("GloveWorker", "load", VECTORS)
                assert world.answer("MlmWorker", "load", MLM) == [name], type(error)
            else:
                assert world.start_one() == [name], type(error)


def test_vectors_are_not_started_on_a_node_that_is_gone() -> None:
    world = World(2)
    assert world.start_one() + world.start_one(OTHER_NODE) == ["mlm-0", "mlm-1"]
    group = world.pool.vectors_of("mlm-1")
    world.ray.num_nodes = 1
    world.pool.vectors_lost("mlm-1", group, "the node died")
    assert world.pending("GloveWorker", "load") == []


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_actor_that_cannot_take_part_is_left_out_while_others_are_ready(is_refused: bool) -> None:
    world = World(2)
    assert world.start_one() == ["mlm-0"]
    world.answer("MlmWorker", "where", NODE)
    world.refused_models = ["m"] if is_refused else []
    assert world.answer("MlmWorker", "load", MLM if is_refused else raised(ExpectedError("no GPU"))) == []
    world.pool.grow()
    assert (world.pool.num_ready, world.pool.num_starting, world.pool.pending) == (1, 0, [])


def test_other_models_than_those_of_the_job_end_the_run_while_no_actor_is_ready() -> None:
    world = World()
    world.refused_models = ["m"]
    with pytest.raises(ManifestError, match="other models"):
        world.start_one()


def test_deaths_in_a_row_end_the_run_and_progress_resets_them() -> None:
    world = World()
    for number in range(DEATHS_AT_LEAST):
        world.pool.lost(f"mlm-{number}", "killed")
    world.pool.progressed()
    for number in range(DEATHS_AT_LEAST, 2 * DEATHS_AT_LEAST):
        world.pool.lost(f"mlm-{number}", "killed")
    with pytest.raises(
        ClusterError, match=r"25 actors died in a row, and no shard was finished .* the last reason: killed"
    ):
        world.pool.lost(f"mlm-{2 * DEATHS_AT_LEAST}", "killed")


def seconds_pass(world: World, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    for watch in (world.pool._loads, world.pool._vector_loads):
        now = watch._clock() + seconds
        monkeypatch.setattr(watch, "_clock", lambda now=now: now)
        watch.look()
        monkeypatch.setattr(watch, "_clock", lambda now=now: now + AWAY_SECONDS)


def test_an_actor_that_hangs_while_it_loads_is_replaced_and_one_that_waits_for_room_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(2)
    world.answer("MlmWorker", "where", NODE)
    while world.pending("GloveWorker", "load"):
        world.answer("GloveWorker", "load", VECTORS)
    world.pool.end_stalled()
    assert world.ray.killed == []
    seconds_pass(world, monkeypatch, 10_000.0)
    world.pool.end_stalled()
    assert [handle.kind for handle in world.ray.killed] == ["MlmWorker"]
    assert len(world.pending("MlmWorker", "where")) == 2


def test_vectors_that_hang_while_they_load_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.answer("MlmWorker", "where", NODE)
    world.answer("MlmWorker", "load", MLM)
    seconds_pass(world, monkeypatch, 10_000.0)
    world.pool.end_stalled()
    assert {handle.kind for handle in world.ray.killed} == {"GloveWorker"}
    while len(world.pending("GloveWorker", "load")) > 1:
        assert world.answer("GloveWorker", "load", VECTORS) == []
    assert world.answer("GloveWorker", "load", VECTORS) == ["mlm-0"]
