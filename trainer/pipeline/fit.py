"""Whether texts, labels and models fit together: the length of inputs, the language, the teacher's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import InputError, ModelError, UsageError
from shared.model_folder import MULTI_LABEL, model_folder, reading_model
from shared.vector_path import check_vectors
from trainer.any_classifier import load_any_classifier
from trainer.labels import find_label
from trainer.models import load_classifier, load_tokenizer
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.inspection import Inspection, texts_of
from trainer.student import parse_size, student_folder
from trainer.teacher_states import AUTO, why_no_states

SAMPLED_ROWS = 4000
COVERED = 98
MIN_LENGTH, STEP, MOST_TOKENS = 32, 8, 512
MOST_TRUNCATED = 0.5
MOST_UNKNOWN, MOST_TOKENS_PER_WORD = 0.05, 2.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """max_length: for all steps, in tokens; truncated: share of longer texts; student: --student, resolved.

    answers_only: whether the teacher's hidden states cannot be learned (see `trainer.teacher_states`). classes: names
    of the classes that the models predict; empty for regression.
    """

    max_length: int
    truncated: float
    student: str
    classes: tuple[str, ...]
    answers_only: bool = False
    notes: tuple[str, ...] = ()


def check_fit(config: DistillConfig, inspection: Inspection) -> Fit:
    """Load the models that distillation starts from and check them against the texts. Raises ExpectedError.

    Models are loaded in full: damaged or missing weights would otherwise fail a later step, after minutes.
    """
    from transformers import AutoConfig

    named = EMBEDDED if config.teacher_column else config.teacher or config.encoder
    option = "--teacher" if config.teacher else "--encoder"
    path = model_folder(resolve_encoder(named) if named == EMBEDDED else named, option)
    with reading_model(path, option):
        settings = AutoConfig.from_pretrained(path)
    tokenizer = load_tokenizer(path, option)
    classes = _teacher_classes(config, settings, inspection) if config.teacher else tuple(inspection.counts)
    is_bert = settings.model_type == "bert"
    if not is_bert and not config.teacher:
        raise ModelError(
            f"--encoder {named} is a {settings.model_type}, but `trainer teacher` fine-tunes only BERT models. "
            "Fine-tune it with another program, then pass the result with --teacher"
        )
    why = why_no_states(path, config.student) if config.teacher else None
    answers_only = why is not None
    lengths, unknown, per_word = _tokens(tokenizer, inspection)
    reader = "the embedded encoder" if config.teacher_column else f"{option} {named}"
    if answers_only and config.student == AUTO:
        # The student uses the embedded encoder's tokens, whichever its teacher uses.
        _, unknown, per_word = _tokens(load_tokenizer(resolve_encoder(EMBEDDED)), inspection)
        reader = "the embedded student"
    if not config.any_language and (unknown > MOST_UNKNOWN or per_word > MOST_TOKENS_PER_WORD):
        raise ModelError(
            f"{reader} hardly knows the words of {config.data}: {unknown:.0%} of the tokens are unknown, and a word "
            f"takes {per_word:.1f} tokens (1.3 in the model's own language). Choose models for the language of the "
            "texts with --encoder or --teacher and with --mlm, or add --any-language"
        )
    num_logits = len(classes) or 1
    if not is_bert:
        longest = load_any_classifier(path, option, device="cpu", dtype="fp32").longest
    else:
        load_classifier(path, None if config.teacher else num_logits, option)
        longest = min(int(settings.max_position_embeddings), int(tokenizer.model_max_length))
    if config.student not in (AUTO, EMBEDDED) and parse_size(config.student) is None:
        load_classifier(student_folder(config.student), num_logits, "--student")
    if config.mlm != EMBEDDED:
        model_folder(config.mlm, "--mlm")
    if config.glove != EMBEDDED:
        check_vectors(config.glove)
    limit = min(longest, MOST_TOKENS)
    if config.max_length is not None and config.max_length > limit:
        raise UsageError(f"--max-length {config.max_length}: {named} reads at most {limit} tokens")
    wanted = max(int(np.percentile(lengths, COVERED)), MIN_LENGTH)
    length = config.max_length or min(-(-wanted // STEP) * STEP, limit)
    truncated = float((lengths > length).mean())
    if truncated > MOST_TRUNCATED and not config.truncate:
        raise InputError(
            f"{config.data}: {truncated:.0%} of the texts are longer than the limit of {length} tokens (median: "
            f"{int(np.median(lengths)):,}), and everything beyond it would be ignored. Split the texts into passages, "
            "or add --truncate"
        )
    notes = [f"inputs of up to {length} tokens; {truncated:.1%} of the texts are longer and will be truncated"]
    if config.teacher:
        notes.append(_learned(settings.model_type, why))
    return Fit(
        max_length=length,
        truncated=truncated,
        student=_student(config, settings, tokenizer),
        classes=classes,
        answers_only=answers_only,
        notes=tuple(notes),
    )


def _teacher_classes(config: DistillConfig, settings: Any, inspection: Inspection) -> tuple[str, ...]:
    """Names of the teacher's classes; none for regression. Raises ModelError if they do not fit the data."""
    count = int(settings.num_labels)
    if not any("SequenceClassification" in name for name in settings.architectures or ()):
        raise ModelError(
            f"--teacher {config.teacher} is not a sequence classification model; to fine-tune it first, pass it with "
            "--encoder"
        )
    several = settings.problem_type == MULTI_LABEL
    if several != inspection.multi_label:
        kinds = {True: "several labels per text", False: "one label per text"}
        raise ModelError(
            f"--teacher {config.teacher} predicts {kinds[several]}, but {config.data} has "
            f"{kinds[inspection.multi_label]}; leave out --teacher to fine-tune one"
        )
    if config.regression != (count == 1 and not several):
        kind = "a number" if count == 1 else f"{count} classes"
        raise ModelError(f"--teacher {config.teacher} predicts {kind}, which does not fit the labels of {config.data}")
    names = tuple(str(settings.id2label[index]) for index in range(count))
    unknown = [label for label in inspection.counts if find_label(names, label) is None]
    if unknown:
        raise ModelError(
            f"--teacher {config.teacher} does not know the label {unknown[0][:40]!r} of {config.data}; its classes are "
            f"{', '.join(names)[:200]}. Rename the labels, or leave out --teacher to fine-tune one"
        )
    return () if config.regression else names


def _learned(kind: str, why: str | None) -> str:
    """Message on whose hidden states the student learns. kind: of the teacher; why: reason if not the teacher's."""
    if why is None:
        return f"{kind} teacher with the student's vocabulary: the student learns its hidden states and its answers"
    return (
        f"{kind} teacher, but {why}: the student learns its answers, which are stored first, and the hidden states of "
        "the embedded encoder"
    )


def _tokens(tokenizer: Any, inspection: Inspection) -> tuple[Any, float, float]:
    """(lengths in tokens, share of unknown tokens, tokens per word) of rows sampled evenly from the file."""
    step = max(len(inspection.rows) // SAMPLED_ROWS, 1)
    first, second = texts_of(inspection.rows[::step], inspection.has_pairs)
    encoded = tokenizer(first, second, truncation=False, padding=False, verbose=False)["input_ids"]
    lengths = np.asarray([len(ids) for ids in encoded])
    words = sum(len(text.split()) for text in _all(first, second))
    total = max(int(lengths.sum()), 1)
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in encoded) / total
    return lengths, unknown, (total - 2 * len(lengths)) / max(words, 1) - _punctuation(first, second, words)


def _punctuation(first: Sequence[str], second: Sequence[str] | None, words: int) -> float:
    """Punctuation marks per word, each a token of its own: they say nothing about the language."""
    marks = sum(not letter.isalnum() and not letter.isspace() for text in _all(first, second) for letter in text)
    return marks / max(words, 1)


def _all(first: Sequence[str], second: Sequence[str] | None) -> list[str]:
    return [*first, *(second or ())]


def _student(config: DistillConfig, settings: Any, tokenizer: Any) -> str:
    """--student; by default the embedded one if the teacher shares its vocabulary, else a new one that fits."""
    if config.student != AUTO:
        return config.student
    from shared.embedded.student import embedded_student, vocabulary_digest

    reads_same = vocabulary_digest(tokenizer.get_vocab()) == embedded_student().vocabulary_sha256
    if reads_same or settings.model_type != "bert":
        return EMBEDDED
    width = min(144, int(settings.hidden_size) // 4 * 4)
    return f"{min(3, int(settings.num_hidden_layers))},{width},{4 * width},4"
