"""`trainer annotate`: stores the teacher's logits alongside the shards, so that the prediction stage needs no teacher.

They are stored in `OUT/annotations/<teacher>-<length>/`, one shard of logits with its own commit record per shard of
samples, by the same protocol: an interrupted run resumes, and a running job is followed. For candidate sets, the
samples of the first epoch are annotated, and the prediction stage then uses these in every epoch.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import Progress, format_seconds
from shared.compute.hardware import resolve_device, resolve_dtype
from shared.errors import UsageError
from shared.model_folder import MULTI_LABEL
from shared.shards import Commit, list_commits, read_shard, write_shard
from shared.storage.store import Store, open_store
from trainer.any_classifier import AnyClassifier, Floats, is_bert, load_any_classifier
from trainer.config import AnnotateConfig
from trainer.data.annotations import AnnotationFacts, write_facts
from trainer.data.augmented import Augmented, open_augmented, sampled, wait_for_commit
from trainer.data.balance import answer_counts, answer_shares
from trainer.data.batches import tokenize
from trainer.data.tasks import sequence_length
from trainer.evaluation import in_precision, predict
from trainer.finite import check_answers
from trainer.models import fingerprint, fitting_length, load_classifier, load_tokenizer, tokenizer_fingerprint

logger = logging.getLogger(__name__)


def run_command(config: AnnotateConfig) -> CommandResult:
    """Annotate every shard that is not annotated yet. Raises ExpectedError."""
    began = time.monotonic()
    if config.threads:
        torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    augmented = open_augmented(config.augmented, config.follow_timeout)
    # Before waiting for a shard, so that a wrong path is reported at once.
    prepare = _bert if is_bert(config.teacher) else _other
    samples = open_store(config.augmented)
    n_a = augmented.largest_n_a if config.n_a is None else config.n_a
    has_pairs = _has_pairs(augmented, samples, config.follow_timeout)
    teacher = prepare(config, has_pairs, device, dtype)
    facts = AnnotationFacts(
        augmented=augmented.fingerprint,
        teacher=teacher.identity,
        tokenizer=teacher.tokenizer_identity,
        max_length=teacher.max_length,
        dtype=str(dtype).removeprefix("torch."),
        n_a=n_a,
    )
    target = open_store(facts.uri(config.augmented))
    write_facts(target, facts)
    done, commits = 0, {one.shard: one for one in _committed(target, n_a)}
    progress = Progress("annotate", augmented.num_shards, "shards")
    for shard in range(augmented.num_shards):
        commit = wait_for_commit(samples, shard, augmented.num_shards, config.follow_timeout)
        if shard not in commits:
            table = sampled(read_shard(samples, commit), augmented, config.n_a, epoch=0)
            logits = _logits(table, teacher, f"--teacher {config.teacher}")
            counts = _counts(table, logits) if teacher.classes else {}
            statistics = {"n_a": n_a} | counts
            commits[shard] = write_shard(target, shard, _stored(table, logits), commit.sources, [], statistics)
            done += table.num_rows
        progress.update(shard + 1)
    progress.close()
    seconds = time.monotonic() - began
    uri = target.uri
    summary: dict[str, Any] = {"shards": augmented.num_shards, "annotated_rows": done, "seconds": round(seconds, 1)}
    text = f"{done:,} rows annotated in {format_seconds(seconds)}: {uri}"
    shares = answer_shares([one.statistics for one in commits.values()], len(teacher.classes))
    if teacher.classes and shares is not None:
        rows, all_samples = (dict(zip(teacher.classes, of.round(4).tolist(), strict=True)) for of in shares)
        summary |= {"answers_to_rows": rows, "answers_to_samples": all_samples}
        listed = ", ".join(
            f"{name} {rows[name]:.0%} of the source rows, {all_samples[name]:.0%} of all samples" for name in rows
        )
        text += f"\nthe teacher's answers: {listed}"
    return CommandResult(summary | {"output": uri}, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Teacher:
    """A classifier. identity, tokenizer_identity: fingerprints; max_length: longest input in tokens.

    answer: texts and second texts or None -> (texts, C) float32 logits. classes: names of the classes for single-label
    tasks, else empty.
    """

    identity: str
    tokenizer_identity: str
    max_length: int
    answer: Callable[[list[str], list[str] | None], Floats]
    classes: tuple[str, ...]


def _bert(config: AnnotateConfig, has_pairs: bool, device: str, dtype: torch.dtype) -> _Teacher:
    model, tokenizer = load_classifier(config.teacher), load_tokenizer(config.teacher, "--teacher")
    identity = fingerprint(model), tokenizer_fingerprint(tokenizer)
    default = sequence_length(None, has_pairs)
    length = fitting_length(config.max_length, default, model.config, tokenizer, config.teacher)
    ready = in_precision(model.to(device).eval(), dtype)

    def answer(first: list[str], second: list[str] | None) -> Floats:
        return predict(ready, tokenize(tokenizer, first, second, length), device, config.batch_size)

    return _Teacher(
        identity=identity[0],
        tokenizer_identity=identity[1],
        max_length=length,
        answer=answer,
        classes=_classes(model.config),
    )


def _other(config: AnnotateConfig, has_pairs: bool, device: str, dtype: torch.dtype) -> _Teacher:
    """A classifier of another architecture, with its own tokenizer."""
    # Identified by its weights as loaded, before they are cast.
    model = load_any_classifier(config.teacher, device="cpu", dtype="fp32")
    identity, length = fingerprint(model.model), model.fitting_length(config.max_length, has_pairs)
    ready = AnyClassifier(model.model, model.tokenizer, model.path, device, dtype)
    return _Teacher(
        identity=identity,
        tokenizer_identity=tokenizer_fingerprint(model.tokenizer),
        max_length=length,
        answer=lambda first, second: ready.logits(first, second, length, config.batch_size),
        classes=_classes(model.model.config),
    )


def _classes(settings: Any) -> tuple[str, ...]:
    if settings.num_labels == 1 or settings.problem_type == MULTI_LABEL:
        return ()
    return tuple(str(settings.id2label[number]) for number in range(settings.num_labels))


def _has_pairs(augmented: Augmented, samples: Store, timeout_seconds: float) -> bool:
    """Whether rows have two texts: according to the manifest, else to the first shard with rows."""
    if augmented.has_pairs is not None:
        return augmented.has_pairs
    for shard in range(augmented.num_shards):
        table = read_shard(samples, wait_for_commit(samples, shard, augmented.num_shards, timeout_seconds))
        side = table["base_b" if augmented.emits_candidates else "text_b"]
        if table.num_rows:
            return bool(side.null_count < table.num_rows)
    return False


def _committed(target: Store, n_a: int) -> list[Commit]:
    """Commits of shards that are already annotated. Raises UsageError when one has fewer than `n_a` samples per row."""
    commits = list_commits(target)
    fewer = [one for one in commits if one.statistics.get("n_a", n_a) < n_a]
    if fewer:
        raise UsageError(
            f"{target.uri} holds logits for {fewer[0].statistics['n_a']:.0f} samples per row, but --n-a is {n_a}: "
            "remove that folder to annotate again"
        )
    return commits


def _counts(table: pa.Table, logits: Floats) -> dict[str, float]:
    """How often the teacher predicted each class, for `trainer.data.balance`."""
    is_source = pc.and_(pc.equal(table["n"], 0), pc.is_valid(table["label"]))
    return answer_counts(logits, is_source.to_numpy(zero_copy_only=False).astype(bool))


def _logits(table: pa.Table, teacher: _Teacher, name: str) -> Floats:
    """(samples, C) float32. Raises ModelError for answers that are not finite."""
    texts_a, texts_b = table["text_a"].to_pylist(), table["text_b"].to_pylist()
    has_pairs = any(text is not None for text in texts_b)
    second = [text or "" for text in texts_b] if has_pairs else None
    logits = teacher.answer(texts_a, second)
    check_answers(logits, texts_a, name)
    return logits


def _stored(table: pa.Table, logits: Floats) -> pa.Table:
    """Logits with the keys of their samples."""
    width = logits.shape[1]
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(0, len(logits) * width + 1, width, dtype=np.int32)), pa.array(logits.reshape(-1))
    )
    return pa.table({"source_id": table["source_id"], "n": table["n"], "logits": lists})
