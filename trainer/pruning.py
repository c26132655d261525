"""Pruning a student's vocabulary to the samples of an augmentation job, before task distillation."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from shared.errors import UsageError
from shared.shards import read_shard
from shared.storage.store import open_store
from trainer.data.augmented import Augmented, sampled, wait_for_commit
from trainer.models import count_parameters
from trainer.student import Student
from trainer.vocabulary import (
    choose_tokens,
    count_tokens,
    coverage,
    parse_prune_option,
    prune_student,
    prune_tokenizer,
)

logger = logging.getLogger(__name__)


def prune_to_samples(
    student: Student, option: str, augmented: Augmented, n_a: int | None, follow_timeout: float
) -> Student:
    """The student with the vocabulary that --prune-vocabulary describes; the model is changed in place.

    Reads all shards, so it waits for a job that is still running; the result depends only on the job's output. Raises
    UsageError, ModelError, TrainingError, ShardError.
    """
    wanted = parse_prune_option(option)
    if wanted is None:
        return student
    if student.vocabulary is not None:
        raise UsageError(f"--prune-vocabulary {option}: the student's vocabulary is already pruned; use none")
    model = student.model
    counts = count_tokens(student.tokenizer, sample_texts(augmented, n_a, follow_timeout))
    table = model.bert.embeddings.word_embeddings.weight
    pruned = choose_tokens(
        student.tokenizer,
        counts,
        wanted,
        other_parameters=count_parameters(model) - table.numel(),
        hidden=table.shape[1],
    )
    prune_student(model, pruned)
    facts = {"tokens": len(pruned), "parameters": count_parameters(model), "coverage": coverage(pruned, counts)}
    logger.info("pruned vocabulary", extra={"fields": facts})
    return replace(student, tokenizer=prune_tokenizer(student.tokenizer, pruned), vocabulary=pruned)


def sample_texts(augmented: Augmented, n_a: int | None, follow_timeout: float) -> Iterator[str]:
    """The texts of the samples of epoch 0, shard by shard."""
    store = open_store(augmented.uri)
    for shard in range(augmented.num_shards):
        commit = wait_for_commit(store, shard, augmented.num_shards, follow_timeout)
        table = sampled(read_shard(store, commit), augmented, n_a, 0)
        for name in ("text_a", "text_b"):
            yield from (text for text in table[name].to_pylist() if text is not None)
