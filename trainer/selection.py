"""Which rows select the best checkpoint, and which ones score the finished model once, after selection.

With --dev, that file selects. Without it, a validation split is held out from the training rows. --test never selects.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.storage.input_files import sha256_of
from trainer.config import ScoredConfig
from trainer.data.augmented import Augmented
from trainer.data.batches import Ints
from trainer.data.tasks import Table, TaskSpec, read_table
from trainer.data.validation import cut, source_table
from trainer.evaluation import DevSet, predict
from trainer.metrics import agreement, baselines, score
from trainer.result import FinalScores

logger = logging.getLogger(__name__)

DEV_FILE, VALIDATION_PART = "the dev file", "a validation set split from the training data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """dev: rows for checkpoint selection; test: rows for the final scores. origin: of the dev rows, for messages."""

    dev: Table
    test: Table | None
    origin: str

    @property
    def held_out(self) -> Ints:
        """Ascending source ids of rows held out from training."""
        if self.origin == DEV_FILE:
            return np.zeros(0, np.int64)
        return np.unique(np.asarray([row.source_id for row in self.dev.rows], np.int64))


def select_from_table(config: ScoredConfig, train: Table, spec: TaskSpec) -> tuple[Table, Selection]:
    """The training rows, and those for selection and final scores. Raises InputError."""
    test = read_table(config.test, config) if config.test else None
    if config.dev is not None:
        return train, Selection(dev=read_table(config.dev, config), test=test, origin=DEV_FILE)
    kept, apart = cut(train, spec, config.validation_share)
    return kept, Selection(dev=apart, test=test, origin=VALIDATION_PART)


def select_from_shards(
    config: ScoredConfig, augmented: Augmented, spec: TaskSpec, follow_timeout: float, carried: str | None = None
) -> Selection:
    """The rows for a student's selection and final scores. Without --dev, waits for the augmentation job to finish.

    carried: a column of the shards to keep in the rows. Raises InputError, TrainingError, ShardError.
    """
    test = read_table(config.test, config) if config.test else None
    if config.dev is not None:
        return Selection(dev=read_table(config.dev, config), test=test, origin=DEV_FILE)
    _, apart = cut(source_table(augmented, follow_timeout, carried), spec, config.validation_share)
    return Selection(dev=apart, test=test, origin=VALIDATION_PART)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalSet:
    """The test rows as the student and its teacher read them; teacher: the teacher's scores.

    answers: (rows, C) float32 logits that came with these rows.
    """

    own: DevSet
    teacher: Mapping[str, float] | None = None
    answers: NDArray[np.float32] | None = None

    def scores(self, model: Any, device: str) -> FinalScores:
        """Scores of the finished model, in fp32. Raises InputError when rows have no label."""
        logits, spec = predict(model, self.own.pieces, device), self.own.spec
        found = FinalScores(
            rows=len(self.own.labels),
            scores=score(spec, logits, self.own.labels),
            baselines=baselines(spec, self.own.labels),
            teacher=self.teacher,
            agreement=None if self.answers is None else agreement(spec, logits, self.answers),
        )
        fields = dict(found.scores) | ({} if found.agreement is None else {"agreement": found.agreement})
        logger.info("test", extra={"fields": fields})
        return found


def inputs_of(config: ScoredConfig) -> dict[str, str]:
    """Digests of the labelled files, which must not change before a run is resumed."""
    named = {"dev file": config.dev, "test file": config.test}
    return {name: sha256_of(path) for name, path in named.items() if path is not None}
