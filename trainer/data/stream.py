"""Shards of an augmentation job -> windows of training examples, also while the job still writes.

Order is a function of (seed, window size, manifest): the first epoch takes shards as they are numbered, which is how a
running job finishes them, later epochs in a shuffled order; `window_shards` shards make a window, whose rows are
shuffled together. Nothing depends on when a shard appeared, on the number of loader processes, or on ranks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import ShardError, TrainingError
from shared.manifest import MANIFEST, read_manifest
from shared.params import AugmentParams
from shared.rendering import ShardOrder, render_samples
from shared.sampling import draw_samples
from shared.shards import Commit, commit_name, read_commit, read_shard
from shared.storage.store import open_store
from trainer.data.batches import Examples, Window, prepare_window, tokenize
from trainer.data.tasks import TaskSpec
from trainer.models import load_tokenizer

POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Augmented:
    """What a job's manifest says to its readers."""

    uri: str
    num_shards: int
    emits_candidates: bool
    params: AugmentParams
    task: str | None
    fingerprint: str


def open_augmented(uri: str, timeout_seconds: float) -> Augmented:
    """Read a job's manifest, waiting for a job that has not begun. Raises ManifestError, TrainingError."""
    store = open_store(uri)
    _wait(lambda: store.exists(MANIFEST), lambda: 0, timeout_seconds, lambda: f"{store.uri} holds no {MANIFEST}: no "
          f"augmentation job began to write there within {timeout_seconds:.0f} seconds (--follow-timeout)")  # fmt: skip
    manifest = read_manifest(store)
    return Augmented(
        uri=uri,
        num_shards=manifest.plan.shards,
        emits_candidates=manifest.config.emit == "candidates",
        params=manifest.config.params(),
        task=manifest.config.task,
        fingerprint=manifest.fingerprint(),
    )


def wait_for_commit(store: Any, shard: int, total: int, timeout_seconds: float) -> Commit:
    """The commit of a shard; waits as long as the output grows at all. Raises TrainingError when it stopped."""
    name = commit_name(shard)
    _wait(
        lambda: store.exists(name),
        lambda: len(store.list("commits")),
        timeout_seconds,
        lambda: (
            f"{store.uri} stopped growing: shard {shard} of {total} is missing and nothing new came for "
            f"{timeout_seconds:.0f} seconds (--follow-timeout). Did the augmentation job die? Run it again, then this"
        ),
    )
    return read_commit(store, name)


def _wait(
    is_there: Callable[[], bool], growth: Callable[[], int], timeout_seconds: float, complaint: Callable[[], str]
) -> None:
    last, since = -1, time.monotonic()
    while not is_there():
        if (now := growth()) != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since >= timeout_seconds:
            raise TrainingError(complaint())
        time.sleep(min(POLL_SECONDS, max(timeout_seconds, 0.01)))


def epoch_shards(num_shards: int, seed: int, epoch: int) -> list[int]:
    """Order of the shards in an epoch: as numbered in the first, a permutation of them in the others."""
    if epoch == 0:
        return list(range(num_shards))
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, 1])))
    return [int(shard) for shard in generator.permutation(num_shards)]


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch's draws from candidate sets; epoch 0 draws what `--emit samples` would have written."""
    if epoch == 0:
        return seed
    return int(np.random.SeedSequence([seed, epoch, 2]).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass(slots=True)
class ShardStream:
    """A `WindowSource` over an augmentation job's shards. Picklable: loader processes open store and tokenizer anew."""

    augmented: Augmented
    spec: TaskSpec
    tokenizer_path: str
    max_length: int
    batch_size: int
    window_shards: int
    seed: int
    follow_timeout: float
    n_a: int | None = None
    annotations: str | None = None
    """Store of the teacher's logits, when the batches shall carry them."""
    _tokenizer: Any = field(default=None, repr=False)

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch; the same for each."""
        return -(-self.augmented.num_shards // self.window_shards)

    def prepare(self, epoch: int, window: int) -> Window:
        """Read, draw, tokenize and order one window. Raises ShardError, TrainingError, InputError."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.tokenizer_path)
        total = self.augmented.num_shards
        first, last = window * self.window_shards, min((window + 1) * self.window_shards, total)
        shards = epoch_shards(total, self.seed, epoch)[first:last]
        examples = _concatenate([self._examples(shard, epoch) for shard in shards])
        pieces = tokenize(self._tokenizer, examples.texts_a, examples.texts_b, self.max_length)
        return prepare_window(
            examples, pieces, self.batch_size, (self.seed, epoch, window), epoch + first / total, epoch + last / total
        )

    def _examples(self, shard: int, epoch: int) -> Examples:
        store = open_store(self.augmented.uri)
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout)
        table = read_shard(store, commit)
        missing = [name for name in ("source_id", "text_a", "label") if name not in table.column_names]
        if missing:
            raise ShardError(f"{store.uri}/{commit.file} has no column {missing[0]}: it is no shard of this version")
        # Logits exist for the samples of epoch 0 alone.
        table = sampled(table, self.augmented, self.n_a, epoch if self.annotations is None else 0)
        logits = None if self.annotations is None else self._logits(shard, table)
        labels = _encode_labels(table["label"], self.spec, f"{store.uri}/{commit.file}")
        keys = np.stack([table["source_id"].to_numpy(), table["n"].to_numpy()], axis=1).astype(np.int64)
        texts_b = table["text_b"].to_pylist()
        has_pairs = any(text is not None for text in texts_b)
        return Examples(
            table["text_a"].to_pylist(), [text or "" for text in texts_b] if has_pairs else None, labels, keys, logits
        )

    def _logits(self, shard: int, table: pa.Table) -> Any:
        store = open_store(str(self.annotations))
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout)
        annotated = read_shard(store, commit)
        place = {key: index for index, key in enumerate(_keys_of(annotated))}
        rows = [place.get(key) for key in _keys_of(table)]
        if None in rows:
            missing = _keys_of(table)[rows.index(None)]
            raise ShardError(
                f"{store.uri}/{commit.file} has no logits for sample {missing[1]} of row {missing[0]}: annotate with "
                "the --n-a of this run or a larger one"
            )
        lists = annotated["logits"].combine_chunks()
        logits = lists.flatten().to_numpy().reshape(len(lists), -1).astype(np.float32)
        return logits[np.asarray(rows, np.int64)]


def sampled(table: pa.Table, augmented: Augmented, n_a: int | None, epoch: int) -> pa.Table:
    """A shard's source rows (n = 0) and their samples of 1 <= n <= `n_a` (default: the job's N_a).

    Samples are read, or drawn from candidate sets: in epoch 0 those that `--emit samples` would have written, in each
    later one others. columns: at least source_id, n, text_a, text_b, label.
    """
    if not augmented.emits_candidates:
        return table if n_a is None else table.filter(pc.less_equal(table["n"], n_a))
    params = augmented.params
    n_a = params.n_a if n_a is None else n_a
    drawn = {"seed": epoch_seed(params.seed, epoch), "n_a": max(params.n_a, n_a)}
    found = read_candidates(table)
    samples = draw_samples(found, params.model_copy(update=drawn)).first(n_a)
    rendered = render_samples(found, samples)
    order = ShardOrder.of(len(found), samples)
    row = pa.array(order.row)
    return pa.table(
        {
            "source_id": table["source_id"].take(row),
            "n": pa.array(order.n.astype(np.int32)),
            "text_a": order.interleave(table["text_a"].combine_chunks(), rendered.text_a),
            "text_b": order.interleave(table["text_b"].combine_chunks(), rendered.text_b),
            "label": table["label"].take(row),
        }
    )


def _keys_of(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["source_id"].to_pylist(), table["n"].to_pylist(), strict=True))


def read_candidates(table: pa.Table) -> list[RowCandidates]:
    """Candidate sets of the rows of a shard of candidates."""
    texts = []
    for side in ("a", "b"):
        bases, sites = table[f"base_{side}"].to_pylist(), table[f"sites_{side}"].to_pylist()
        texts.append(
            [
                None if base is None else TextCandidates(base, _sites(own))
                for base, own in zip(bases, sites, strict=True)
            ]
        )
    ids = table["source_id"].to_pylist()
    return [
        RowCandidates(source_id, first, second)
        for source_id, first, second in zip(ids, *texts, strict=True)
        if first is not None
    ]


def _sites(sets: Sequence[dict[str, Any]] | None) -> tuple[Site, ...]:
    return tuple(
        Site(one["start"], one["end"], one["word"], one["origin"], tuple(one["candidates"]), tuple(one["scores"]))
        for one in sets or ()
    )


def _encode_labels(column: pa.ChunkedArray, spec: TaskSpec, where: str) -> Any:
    values = pc.unique(column).to_pylist()
    code = {value: spec.encode_label(value, where) for value in values}
    return np.asarray([code[value] for value in column.to_pylist()], np.float32)


def _concatenate(parts: Sequence[Examples]) -> Examples:
    has_pairs = any(part.texts_b is not None for part in parts)
    return Examples(
        [text for part in parts for text in part.texts_a],
        [text for part in parts for text in (part.texts_b or [""] * len(part))] if has_pairs else None,
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.keys for part in parts]),
        None if parts[0].logits is None else np.concatenate([part.logits for part in parts if part.logits is not None]),
    )
