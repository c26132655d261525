"""Shards of an augmentation job -> windows of training examples, also while the job is still writing.

Order is a function of (seed, window size, manifest): the first epoch takes shards in numerical order, which is how a
running job finishes them, later epochs in a shuffled order; `window_shards` shards make a window, whose rows are
shuffled together. Nothing depends on when a shard appeared, on the number of loader processes, or on ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.errors import InputError, ShardError
from shared.seeds import shard_order, window_order
from shared.shards import read_shard
from shared.storage.store import open_store
from trainer.data.annotations import AnnotationFacts, check_facts
from trainer.data.augmented import Augmented, sampled, wait_for_commit
from trainer.data.batches import Examples, Ints, Window, prepare_window, tokenize
from trainer.data.tasks import TaskSpec

Floats = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class ShardStream:
    """Windows of an augmentation job's shards. Picklable: loader processes reopen the store.

    n_a: samples per source row (default: the job's). annotations: what the teacher's logits must have been made from,
    if batches carry them. has_pairs: whether rows have two texts, as in the dev file; None accepts both.
    held_out: rising source ids of rows that are left out together with their samples.
    """

    augmented: Augmented
    spec: TaskSpec
    tokenizer: Any
    max_length: int
    batch_size: int
    window_shards: int
    seed: int
    follow_timeout: float
    pad_id: int
    n_a: int | None = None
    annotations: AnnotationFacts | None = None
    has_pairs: bool | None = None
    held_out: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    _is_checked: bool = False

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch; the same for each."""
        return -(-self.augmented.num_shards // self.window_shards)

    def prepare(self, epoch: int, window: int) -> Window:
        """Read, draw, tokenize and order one window. Raises ShardError, TrainingError, InputError."""
        total = self.augmented.num_shards
        first, last = window * self.window_shards, min((window + 1) * self.window_shards, total)
        shards = epoch_shards(total, self.seed, epoch)[first:last]
        examples = _concatenate([self._examples(shard, epoch) for shard in shards])
        return prepare_window(
            examples,
            tokenize(self.tokenizer, examples.texts_a, examples.texts_b, self.max_length),
            batch_size=self.batch_size,
            generator=window_order(self.seed, epoch, window),
            begin=epoch + first / total,
            end=epoch + last / total,
            pad_id=self.pad_id,
        )

    def _examples(self, shard: int, epoch: int) -> Examples:
        store = open_store(self.augmented.uri)
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout)
        table = read_shard(store, commit)
        missing = [name for name in ("source_id", "text_a", "label") if name not in table.column_names]
        if missing:
            raise ShardError(
                f"{store.uri}/{commit.file} has no column {missing[0]}: it is not a shard of this format version"
            )
        if len(self.held_out):
            table = table.filter(pa.array(~np.isin(table["source_id"].to_numpy(), self.held_out)))
        # Logits exist only for the samples of epoch 0.
        table = sampled(table, self.augmented, self.n_a, epoch if self.annotations is None else 0)
        texts_b = table["text_b"].to_pylist()
        has_pairs = any(text is not None for text in texts_b)
        if texts_b and self.has_pairs is not None and has_pairs != self.has_pairs:
            raise InputError(
                f"{store.uri} holds {'text pairs' if has_pairs else 'single texts'}, the dev file "
                f"{'text pairs' if self.has_pairs else 'single texts'}: check --text-column, --task and --augmented"
            )
        return Examples(
            texts_a=table["text_a"].to_pylist(),
            texts_b=[text or "" for text in texts_b] if has_pairs else None,
            labels=_encode_labels(table["label"], self.spec, f"{store.uri}/{commit.file}"),
            keys=np.stack([table["source_id"].to_numpy(), table["n"].to_numpy()], axis=1).astype(np.int64),
            logits=None if self.annotations is None else self._logits(shard, table),
        )

    def _logits(self, shard: int, table: pa.Table) -> Floats:
        assert self.annotations is not None
        store = open_store(self.annotations.uri(self.augmented.uri))
        writer = "`trainer annotate` with this teacher and --max-length"
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout, writer)
        if not self._is_checked:
            check_facts(store, self.annotations)
            self._is_checked = True
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
        logits: Floats = lists.flatten().to_numpy().reshape(len(lists), self.spec.num_logits).astype(np.float32)
        return logits[np.asarray(rows, np.int64)]


def epoch_shards(num_shards: int, seed: int, epoch: int) -> list[int]:
    """Order of the shards in an epoch: numerical in the first, a permutation in the others."""
    if epoch == 0:
        return list(range(num_shards))
    return [int(shard) for shard in shard_order(seed, epoch).permutation(num_shards)]


def _keys_of(table: pa.Table) -> list[tuple[int, int]]:
    return list(zip(table["source_id"].to_pylist(), table["n"].to_pylist(), strict=True))


def _encode_labels(column: pa.ChunkedArray, spec: TaskSpec, where: str) -> Floats:
    values = pc.unique(column).to_pylist()
    code = {value: spec.encode_label(value, where) for value in values}
    return np.asarray([code[value] for value in column.to_pylist()], np.float32)


def _concatenate(parts: Sequence[Examples]) -> Examples:
    has_pairs = any(part.texts_b is not None for part in parts)
    logits = [part.logits for part in parts if part.logits is not None]
    return Examples(
        texts_a=[text for part in parts for text in part.texts_a],
        texts_b=[text for part in parts for text in (part.texts_b or [""] * len(part))] if has_pairs else None,
        labels=np.concatenate([part.labels for part in parts]),
        keys=np.concatenate([part.keys for part in parts]),
        logits=np.concatenate(logits) if logits else None,
    )
