"""The order of training examples: what it depends on, and what it does not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shared.errors import ExpectedError, InputError, ManifestError, ShardError, TrainingError
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.shards import list_commits, read_shard, write_shard
from shared.storage.store import open_store
from tests.support.distillation import Output, candidates_of, save_teacher, source_rows
from trainer.data.annotations import AnnotationFacts, write_facts
from trainer.data.augmented import open_augmented
from trainer.data.balance import answer_counts
from trainer.data.budget import Epochs
from trainer.data.loader import Cursor, Loader
from trainer.data.stream import ShardStream, epoch_shards
from trainer.data.tasks import TaskSpec
from trainer.models import load_tokenizer

SPEC = TaskSpec(name="classification", labels=("0", "1"), metrics=("accuracy",))
Keys = list[tuple[int, int]]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "model")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("augmented")
    Output(folder).finish()
    return folder


def stream_of(folder: Path, teacher: Path, timeout: float = 0.0, **options: object) -> ShardStream:
    values: dict[str, Any] = {"batch_size": 4, "window_shards": 2, "seed": 9} | options
    return ShardStream(
        augmented=open_augmented(str(folder), timeout),
        spec=SPEC,
        tokenizer=load_tokenizer(str(teacher)),
        max_length=32,
        follow_timeout=timeout,
        pad_id=0,
        **values,
    )


def loader_of(stream: ShardStream, epochs: float, processes: int = 0, rank: int = 0, world: int = 1) -> Loader[Any]:
    return Loader(source=stream, budget=Epochs(total=epochs), num_processes=processes, rank=rank, world=world)


def keys_of(loader: Loader[Any], cursor: Cursor | None = None) -> list[Keys]:
    """(source id, n) of every step's rows on this rank."""
    return [
        [(int(source), int(n)) for part in step.parts for source, n in part.keys]
        for step in loader.steps(cursor or Cursor())
    ]


def test_every_sample_comes_once_an_epoch_and_epochs_differ(finished: Path, teacher: Path) -> None:
    steps = keys_of(loader_of(stream_of(finished, teacher), 2.0))
    counts = Counter(key for step in steps for key in step)
    assert set(counts.values()) == {2}
    assert len(counts) == 40 * 4
    half = len(steps) // 2
    assert steps[:half] != steps[half:]
    assert epoch_shards(7, 9, 0) == list(range(7))
    assert sorted(epoch_shards(7, 9, 1)) == list(range(7)) != epoch_shards(7, 9, 1)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_split_each_batch_without_loss_or_double(finished: Path, teacher: Path, world: int) -> None:
    whole = keys_of(loader_of(stream_of(finished, teacher), 1.0))
    ranks = [keys_of(loader_of(stream_of(finished, teacher), 1.0, 0, rank, world)) for rank in range(world)]
    for number, step in enumerate(whole):
        assert sorted(key for rank in ranks for key in rank[number]) == sorted(step)


def test_resuming_at_any_step_is_the_same_as_never_stopping(finished: Path, teacher: Path) -> None:
    loader = loader_of(stream_of(finished, teacher), 1.5)
    cursors = [Cursor()] + [step.after for step in loader.steps(Cursor())]
    whole = keys_of(loader_of(stream_of(finished, teacher), 1.5))
    for number in range(0, len(whole) + 1, 7):
        assert keys_of(loader_of(stream_of(finished, teacher), 1.5), cursors[number]) == whole[number:]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("processes", [1, 4])
def test_loader_processes_do_not_change_the_order(finished: Path, teacher: Path, processes: int) -> None:
    alone = keys_of(loader_of(stream_of(finished, teacher), 2.0))
    assert keys_of(loader_of(stream_of(finished, teacher), 2.0, processes)) == alone


def test_a_job_that_still_writes_gives_the_order_of_a_finished_one(
    tmp_path: Path, finished: Path, teacher: Path
) -> None:
    output = Output(tmp_path)

    def write() -> None:
        # Out of order, as actors finish: the reader waits for the one that comes next.
        for shard in (1, 0, 3, 2, 6, 5, 4):
            time.sleep(0.1)
            output.commit(shard)

    thread = threading.Thread(target=write)
    thread.start()
    followed = keys_of(loader_of(stream_of(tmp_path, teacher, timeout=20.0), 1.0))
    thread.join()
    assert followed == keys_of(loader_of(stream_of(finished, teacher), 1.0))


def test_candidate_shards_give_the_job_s_samples_first_and_fresh_ones_in_later_epochs(
    tmp_path: Path, finished: Path, teacher: Path
) -> None:
    Output(tmp_path, emit="candidates").finish()
    drawn, written = stream_of(tmp_path, teacher), stream_of(finished, teacher)
    for window in range(written.num_windows(0)):
        one, other = drawn.prepare(0, window), written.prepare(0, window)
        assert np.array_equal(one.pieces.ids, other.pieces.ids)
        assert np.array_equal(one.keys, other.keys)
    first = {bytes(drawn.prepare(0, window).pieces.ids) for window in range(4)}
    second = {bytes(drawn.prepare(1, window).pieces.ids) for window in range(4)}
    assert not first & second


def test_fewer_samples_are_the_first_of_each_source(tmp_path: Path, finished: Path, teacher: Path) -> None:
    only_sources = keys_of(loader_of(stream_of(finished, teacher, n_a=0), 1.0))
    assert sorted(key for step in only_sources for key in step) == [(index, 0) for index in range(40)]
    Output(tmp_path, emit="candidates").finish()
    drawn = [key for step in keys_of(loader_of(stream_of(tmp_path, teacher, n_a=1), 1.0)) for key in step]
    assert Counter(n for _, n in drawn) == {0: 40, 1: 40}


def test_the_shared_draws_are_the_shard_s_own(finished: Path, teacher: Path) -> None:
    rows = source_rows(40)
    samples = draw_samples([candidates_of(row) for row in rows], AugmentParams(n_a=3, seed=5))
    stream = stream_of(finished, teacher)
    total = sum(len(stream.prepare(0, window).labels) for window in range(4))
    assert total == 40 + len(samples)


def annotated(folder: Path, *, counts: bool) -> AnnotationFacts:
    """Answers to a job's samples: half of the rows get class 1, and of their samples only those of even rows' first."""
    augmented = open_augmented(str(folder), 0.0)
    facts = AnnotationFacts(augmented=augmented.fingerprint, teacher="t" * 16, tokenizer="x", max_length=32)
    samples, target = open_store(str(folder)), open_store(facts.uri(augmented.uri))
    write_facts(target, facts)
    for commit in list_commits(samples):
        table = read_shard(samples, commit)
        keys = list(zip(table["source_id"].to_pylist(), table["n"].to_pylist(), strict=True))
        answers = np.asarray([source % 2 == 0 and n in (0, 1 if source % 4 == 0 else 0) for source, n in keys])
        logits = np.stack([~answers, answers], axis=1).astype(np.float32)
        is_source = np.asarray([n == 0 for _, n in keys])
        statistics = answer_counts(logits, is_source) if counts else {}
        stored = pa.table({"source_id": table["source_id"], "n": table["n"], "logits": logits.tolist()})
        write_shard(target, commit.shard, stored, commit.sources, [], statistics)
    return facts


def test_balanced_samples_have_the_answers_of_the_rows(tmp_path: Path, teacher: Path) -> None:
    Output(tmp_path).finish()
    facts = annotated(tmp_path, counts=True)

    def shares(balances: bool) -> Any:
        stream = stream_of(tmp_path, teacher, annotations=facts, balances=balances)
        steps = loader_of(stream, 8.0).steps(Cursor())
        answers = np.concatenate([part.logits.argmax(-1).numpy() for step in steps for part in step.parts])
        return np.bincount(answers, minlength=2) / len(answers)

    assert shares(balances=False)[1] == pytest.approx(30 / 160)
    assert shares(balances=True)[1] == pytest.approx(0.5, abs=0.04)


def test_answers_that_nobody_counted_cannot_be_balanced(tmp_path: Path, teacher: Path) -> None:
    Output(tmp_path).finish()
    stream = stream_of(tmp_path, teacher, annotations=annotated(tmp_path, counts=False), balances=True)
    with pytest.raises(ManifestError, match="did not record how often the teacher predicted each"):
        stream.prepare(0, 0)


def fails(kind: type[ExpectedError], message: str, folder: Path, teacher: Path) -> None:
    with pytest.raises(kind, match=message):
        keys_of(loader_of(stream_of(folder, teacher), 1.0))


def test_what_is_wrong_with_an_output_is_said_in_one_line(tmp_path: Path, teacher: Path) -> None:
    fails(TrainingError, "no augmentation job started", tmp_path / "nothing", teacher)
    dead = Output(tmp_path / "dead")
    dead.commit(0)
    fails(TrainingError, "stopped growing: shard 1 of 7", tmp_path / "dead", teacher)
    damaged = Output(tmp_path / "damaged").finish()
    path = tmp_path / "damaged" / damaged.store.list("shards")[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    fails(ShardError, "damaged: its checksum", tmp_path / "damaged", teacher)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text('{"format_version": 1}')
    fails(
        ManifestError, "was not written by `augment_service run`: config: Field required", tmp_path / "other", teacher
    )


def test_a_label_outside_the_teacher_s_classes_is_named(finished: Path, teacher: Path) -> None:
    stream = stream_of(finished, teacher)
    stream.spec = TaskSpec(name="classification", labels=("0", "2"), metrics=("accuracy",))
    with pytest.raises(InputError, match="label '1' matches none of the classes 0, 2"):
        stream.prepare(0, 0)
