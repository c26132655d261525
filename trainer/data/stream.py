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
from numpy.typing import NDArray

from shared.errors import InputError, ManifestError, ShardError
from shared.seeds import balance_draws, shard_order, window_order
from shared.shards import Commit, read_shard
from shared.storage.store import open_store
from trainer.data.annotations import AnnotationFacts, check_facts
from trainer.data.augmented import Augmented, sampled, wait_for_commit
from trainer.data.balance import answer_shares, balance_weights, balanced_rows
from trainer.data.batches import Examples, Ints, Tokenized, Window, prepare_window, tokenize
from trainer.data.given_answers import GivenAnswers, carried_name
from trainer.data.tasks import TaskSpec
from trainer.data.token_cache import TokenCache

Floats = NDArray[np.float32]


@dataclass(slots=True, kw_only=True)
class ShardStream:
    """Windows of an augmentation job's shards. Picklable: loader processes reopen the store.

    n_a: samples per source row (default: the job's). annotations: required provenance of the teacher's logits, if
    batches carry them; balances: repeat and leave out samples so that the teacher's predictions have the class shares
    of those on source rows; answers: the column of the shards that has the answers instead. has_pairs: whether rows
    have two texts, as in the dev file; None accepts both. held_out: ascending source ids of rows that are left out
    together with their samples. cache: of tokenized shards, with tokenizer_digest as part of the key. rank, world: this
    worker among those that may share the cache.
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
    balances: bool = False
    answers: GivenAnswers | None = None
    has_pairs: bool | None = None
    held_out: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    cache: TokenCache | None = None
    tokenizer_digest: str = ""
    rank: int = 0
    world: int = 1
    _is_checked: bool = False
    _weights: NDArray[np.float64] | None = None

    def num_windows(self, epoch: int) -> int:
        """Windows of an epoch; the same for each."""
        return -(-self.augmented.num_shards // self.window_shards)

    def prepare(self, epoch: int, window: int) -> Window:
        """Read, draw, tokenize and order one window. Raises ShardError, TrainingError, InputError."""
        total = self.augmented.num_shards
        first, last = window * self.window_shards, min((window + 1) * self.window_shards, total)
        shards = epoch_shards(total, self.seed, epoch)[first:last]
        data = Tokenized.concatenate(self._tokenized(shards, epoch))
        if len(self.held_out):
            data = data.take(np.flatnonzero(~np.isin(data.keys[:, 0], self.held_out)))
        if self.balances and data.logits is not None:
            draws = balance_draws(self.seed, epoch, window)
            data = data.take(balanced_rows(data.logits, self._balance(), draws))
        return prepare_window(
            data,
            batch_size=self.batch_size,
            generator=window_order(self.seed, epoch, window),
            begin=epoch + first / total,
            end=epoch + last / total,
            pad_id=self.pad_id,
        )

    def _tokenized(self, shards: Sequence[int], epoch: int) -> list[Tokenized]:
        """The shards of a window. Ranks start at different shards, so that those with a common cache share the work."""
        begin = self.rank * len(shards) // self.world
        found = {shard: self._shard(shard, epoch) for shard in [*shards[begin:], *shards[:begin]]}
        return [found[shard] for shard in shards]

    def _shard(self, shard: int, epoch: int) -> Tokenized:
        store = open_store(self.augmented.uri)
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout)
        # Logits exist only for the samples of epoch 0.
        draws = epoch if self.augmented.emits_candidates and self.annotations is None else 0
        logits = None if self.annotations is None else self._annotation(shard)

        def tokenized() -> Tokenized:
            examples = self._examples(shard, commit, draws, logits)
            return Tokenized.of(examples, tokenize(self.tokenizer, examples.texts_a, examples.texts_b, self.max_length))

        if self.cache is None:
            data = tokenized()
        else:
            drawn = (self.augmented.fingerprint, draws) if self.augmented.emits_candidates else ()
            kind = ["multi-label"] if self.spec.multi_label else []
            kind += [] if self.answers is None else [self.answers.identity()]
            made_from = (commit.sha256, logits.sha256 if logits else "", self.tokenizer_digest, self.max_length)
            data = self.cache.get([*made_from, self.n_a, list(self.spec.labels or ()), *kind, *drawn], tokenized)
        if len(data) and self.has_pairs is not None and data.has_pairs != self.has_pairs:
            raise InputError(
                f"{store.uri} holds {'text pairs' if data.has_pairs else 'single texts'}, but the dev file holds "
                f"{'text pairs' if self.has_pairs else 'single texts'}: check --text-column, --task and --augmented"
            )
        return data

    def _examples(self, shard: int, commit: Commit, draws: int, logits: Commit | None) -> Examples:
        store = open_store(self.augmented.uri)
        table = read_shard(store, commit)
        missing = [name for name in ("source_id", "text_a", "label") if name not in table.column_names]
        if missing:
            raise ShardError(
                f"{store.uri}/{commit.file} has no column {missing[0]}: it is not a shard of this format version"
            )
        where = f"{store.uri}/{commit.file}"
        carried = () if self.answers is None else (self._answer_column(table, where),)
        table = sampled(table, self.augmented, self.n_a, draws, carried)
        texts_b = table["text_b"].to_pylist()
        has_pairs = any(text is not None for text in texts_b)
        return Examples(
            texts_a=table["text_a"].to_pylist(),
            texts_b=[text or "" for text in texts_b] if has_pairs else None,
            labels=self.spec.encode_labels(table["label"].to_pylist(), lambda _: where),
            keys=np.stack([table["source_id"].to_numpy(), table["n"].to_numpy()], axis=1).astype(np.int64),
            logits=self._given(table, where) if logits is None else self._logits(logits, table),
        )

    def _answer_column(self, table: pa.Table, where: str) -> str:
        """The name of --teacher-column in the shards."""
        assert self.answers is not None
        name = carried_name(self.answers.column)
        if name not in table.column_names:
            raise InputError(
                f"{where} has no column {name}: --teacher-column must name a column of the augmentation job's --input, "
                "which the job copies into its shards"
            )
        return name

    def _given(self, table: pa.Table, where: str) -> Floats | None:
        """(rows, C) answers that came with the data; a sample takes those of its source row."""
        if self.answers is None:
            return None
        ids = table["source_id"].to_pylist()
        cells = table[carried_name(self.answers.column)].to_pylist()
        return self.answers.logits(cells, lambda place: f"{where} row {ids[place]}")

    def _annotation(self, shard: int) -> Commit:
        """The commit of a shard's logits."""
        assert self.annotations is not None
        store = open_store(self.annotations.uri(self.augmented.uri))
        writer = "`trainer annotate` with this teacher and --max-length"
        commit = wait_for_commit(store, shard, self.augmented.num_shards, self.follow_timeout, writer)
        if not self._is_checked:
            check_facts(store, self.annotations)
            self._is_checked = True
        return commit

    def _balance(self) -> NDArray[np.float64]:
        """The weight of each class; waits for all annotations. Raises TrainingError, ManifestError."""
        if self._weights is None:
            commits = [self._annotation(shard) for shard in range(self.augmented.num_shards)]
            shares = answer_shares([commit.statistics for commit in commits], self.spec.num_logits)
            if shares is None:
                assert self.annotations is not None
                raise ManifestError(
                    f"{self.annotations.uri(self.augmented.uri)} was written by an earlier version, which did not "
                    "record how often the teacher predicted each class: remove that folder and run `trainer annotate` "
                    "again"
                )
            self._weights = balance_weights(*shares)
        return self._weights

    def _logits(self, commit: Commit, table: pa.Table) -> Floats:
        assert self.annotations is not None
        store = open_store(self.annotations.uri(self.augmented.uri))
        annotated = read_shard(store, commit)
        place = {key: index for index, key in enumerate(_keys_of(annotated))}
        rows = [place.get(key) for key in _keys_of(table)]
        if None in rows:
            missing = _keys_of(table)[rows.index(None)]
            raise ShardError(
                f"{store.uri}/{commit.file} has no logits for sample {missing[1]} of row {missing[0]}: run `trainer "
                "annotate` with an --n-a at least as large as in this run"
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
