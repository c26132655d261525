"""Use a trained classifier from Python: load it, predict, and score it on a labelled file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.errors import InputError, ModelError, UsageError
from shared.model_folder import check_tokenizer_fits
from shared.storage.objects import is_remote
from shared.storage.remote_model import fetched_model
from shared.storage.store import open_store
from trainer.config import EvaluateConfig
from trainer.data.batches import Pieces, tokenize
from trainer.data.tasks import TaskSpec, read_table, sequence_length
from trainer.evaluation import in_precision, predict
from trainer.finite import check_answers
from trainer.metrics import score
from trainer.models import load_classifier, load_tokenizer, teacher_spec

Text = str | tuple[str, str]
"""A text, or a pair of texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model predicts for one text.

    label: the most probable class, None for regression and multi-label models. labels: all predicted classes: that
    class, or for multi-label models those with a probability above one half. probabilities: class -> probability, in
    the order of the model's outputs; they add up to 1 except for multi-label models; empty for regression. value: the
    number predicted by a regression model, in the units of its training labels; None for classification.
    """

    label: str | None
    probabilities: Mapping[str, float]
    value: float | None
    labels: tuple[str, ...] = ()


class Classifier:
    """A BERT classifier or regressor in memory. Make one with `load_student`."""

    def __init__(self, folder: Path, device: str, dtype: str, max_length: int | None) -> None:
        model = _load_model(folder)
        self.folder = folder
        self.device = resolve_device(device)
        self.tokenizer = load_tokenizer(str(folder))
        check_tokenizer_fits(self.tokenizer, model.config.vocab_size, str(folder), "model")
        self._model = in_precision(model.to(self.device).eval(), resolve_dtype(dtype, self.device))
        self._spec = self.spec(None)
        self._max_length = max_length

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of the model's outputs; None for regression."""
        return self._spec.labels

    def spec(self, task: str | None) -> TaskSpec:
        """What the model predicts, and the metrics of `task`. Raises UsageError, and ModelError if it does not fit."""
        return teacher_spec(self._model, task, str(self.folder))

    def predict(self, texts: Sequence[Text], batch_size: int = 64) -> list[Prediction]:
        """Predict the class, or the number, of each text, in the order of `texts`.

        texts: strings, or (first, second) tuples for a model of text pairs; longer ones are truncated to the maximum
        length of `load_student`. batch_size: texts per forward pass; it affects speed and memory only.
        Raises UsageError for arguments of the wrong type, InputError for an invalid text, ModelError for logits that
        are not finite.
        """
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        first, second = _split_pairs(texts)
        if not first:
            return []
        logits = self.logits(first, second, batch_size)
        check_answers(logits, first, f"model {self.folder}")
        if self.labels is None:
            return [Prediction(label=None, probabilities={}, value=float(one)) for one in logits[:, 0]]
        probabilities = class_probabilities(logits, self._spec.multi_label)
        return [_prediction(self.labels, row, self._spec.multi_label) for row in probabilities]

    def logits(self, first: Sequence[str], second: Sequence[str] | None, batch_size: int) -> NDArray[np.float32]:
        """Model outputs before softmax, (texts, classes). `second`: the other texts of pairs, or None."""
        pieces = self._tokenize(first, second)
        return predict(self._model, pieces, self.device, batch_size)

    def _own_length(self) -> int | None:
        """The tokenizer's limit, if it is below the model's own: the length that the model was trained with."""
        own = int(self.tokenizer.model_max_length)
        return own if own < self._model.config.max_position_embeddings else None

    def _tokenize(self, first: Sequence[str], second: Sequence[str] | None) -> Pieces:
        longest = sequence_length(self._max_length or self._own_length(), second is not None)
        return tokenize(self.tokenizer, first, second, min(longest, self._model.config.max_position_embeddings))


def load_student(
    folder: str | PathLike[str], *, device: str = "auto", dtype: str = "auto", max_length: int | None = None
) -> Classifier:
    """Load a student, or any BERT sequence classifier, for prediction.

    folder: the output folder of `trainer task` or `trainer teacher`, its `model` folder, or another folder that plain
    transformers loads as a BERT sequence classifier; or the URI of one in an object store. device: auto (CUDA if
    available), cpu or cuda. dtype: auto (bf16 if the device supports it), fp32 or bf16. max_length: longest input in
    tokens; by default what the run trained with, else 64, or 128 for text pairs.

    >>> import trainer
    >>> student = trainer.load_student(folder)
    >>> student.labels
    ('negative', 'positive')
    >>> prediction, = student.predict(["a great movie"])
    >>> prediction.label in student.labels
    True
    >>> round(sum(prediction.probabilities.values()), 6)
    1.0

    Raises ModelError if the folder does not contain such a model, UsageError for a device, dtype or length that cannot
    be used, StoreError.
    """
    if max_length is not None and max_length < 3:
        raise UsageError(f"max_length must be at least 3 (two special tokens and one of the text), not {max_length}")
    for name, value, known in (("device", device, ("auto", "cpu", "cuda")), ("dtype", dtype, ("auto", "fp32", "bf16"))):
        if value not in known:
            raise UsageError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if isinstance(folder, str) and is_remote(folder):
        path, run = Path(fetched_model(folder, "model")), _stored_options(folder)
        return Classifier(path, device, dtype, max_length or (run or {}).get("max_length"))
    path = Path(folder)
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder")
    if (run := _run_options(path)) is not None:
        path = path / "model"
        if not path.is_dir():
            raise ModelError(f"{path}: no such folder; the run has not finished, or does not train a classifier")
    else:
        run = _run_options(path.parent)
    return Classifier(path, device, dtype, max_length or (run or {}).get("max_length"))


def evaluate(
    model: Classifier | str | PathLike[str],
    data: str | PathLike[str],
    *,
    task: str | None = None,
    text_column: str | int | Sequence[str | int] = (),
    label_column: str | int | None = None,
    multi_label: Sequence[str | int] = (),
    batch_size: int = 64,
) -> dict[str, float]:
    """Score a model on a labelled file: metric -> value, the task's main metric first.

    model: a Classifier, or a folder for `load_student`. data: TSV, CSV, JSONL, Parquet or Arrow file. Its columns are
    those of a GLUE `task`, or `text_column` (two for text pairs) and `label_column`, by name or 0-based index;
    for multi-label data, `multi_label` may name a column of 0 and 1 for each label. Metrics: those of the GLUE task;
    otherwise accuracy and macro F1, for regression Pearson and Spearman correlation, for multi-label data micro and
    macro F1 and the share of texts with exactly the right labels.

    >>> import trainer
    >>> sorted(trainer.evaluate(folder, reviews, text_column="text", label_column="label"))
    ['accuracy', 'f1_macro']

    Raises UsageError for arguments that do not fit together, InputError for a file, column or label that cannot be
    used, ModelError for a model that cannot be loaded or does not fit the task.
    """
    columns = (text_column,) if isinstance(text_column, str | int) else tuple(text_column)
    if task is None and not (columns and (label_column is not None or multi_label)):
        raise UsageError("evaluate needs task, or both text_column and label_column")
    config = EvaluateConfig.build(
        {
            "model": str(model.folder if isinstance(model, Classifier) else model),
            "data": str(data),
            "task": task,
            "text_column": tuple(str(one) for one in columns),
            "label_column": None if label_column is None else str(label_column),
            "multi_label": tuple(str(one) for one in multi_label),
            "batch_size": batch_size,
        }
    )
    classifier = model if isinstance(model, Classifier) else load_student(model)
    spec = classifier.spec(task)
    examples = read_table(config.data, config).examples(spec)
    logits = classifier.logits(examples.texts_a, examples.texts_b, batch_size)
    check_answers(logits, examples.texts_a, f"model {classifier.folder}")
    return score(spec, logits, examples.labels)


def _load_model(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is not a model folder: it has no config.json")
    return load_classifier(str(folder), option="model")


def _run_options(folder: Path) -> dict[str, Any] | None:
    """The options recorded in a run's output folder; None for any other folder."""
    try:
        return _options_in((folder / "config.json").read_bytes())
    except OSError:
        return None


def _stored_options(uri: str) -> dict[str, Any] | None:
    """As `_run_options` for a run, or the run of a model, in an object store. Raises StoreError."""
    output = uri.rstrip("/").removesuffix("/model")
    if not is_remote(output):
        return None
    store = open_store(output)
    return _options_in(store.read("config.json")) if store.exists("config.json") else None


def _options_in(content: bytes) -> dict[str, Any] | None:
    try:
        options = json.loads(content)
    except ValueError:
        return None
    return options if isinstance(options, dict) and "command" in options else None


def _split_pairs(texts: Sequence[Text]) -> tuple[list[str], list[str] | None]:
    """First texts, and second texts if all of them are pairs. Raises UsageError, InputError."""
    if isinstance(texts, str) or not isinstance(texts, Sequence | np.ndarray):
        raise UsageError(f"texts must be a list of strings or of pairs, not a {type(texts).__name__}")
    pairs = [number for number, text in enumerate(texts) if isinstance(text, tuple)]
    if pairs and len(pairs) < len(texts):
        raise InputError(f"texts[{pairs[0]}] is a pair, but others are single texts; pass only one kind")
    for number, text in enumerate(texts):
        parts = text if isinstance(text, tuple) else (text,)
        if len(parts) != (2 if pairs else 1) or not all(isinstance(part, str) for part in parts):
            raise InputError(f"texts[{number}] must be a string or a pair of strings, not {str(text)[:40]!r}")
        if any(not part.isascii() and any(0xD800 <= ord(letter) <= 0xDFFF for letter in part) for part in parts):
            raise InputError(f"texts[{number}] contains a lone surrogate, which is not valid Unicode text")
    if pairs:
        return [text[0] for text in texts], [text[1] for text in texts]
    return [str(text) for text in texts], None


def class_probabilities(logits: NDArray[np.float32], multi_label: bool) -> NDArray[np.float64]:
    """(rows, C) float64: the softmax of logits (rows, C), or the sigmoid of each for multi-label tasks."""
    if multi_label:
        return np.asarray(torch.sigmoid(torch.from_numpy(logits).double()).numpy())
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(-1, keepdims=True)
    return probabilities


def _prediction(labels: Sequence[str], probabilities: NDArray[np.float64], multi_label: bool) -> Prediction:
    named = dict(zip(labels, probabilities.tolist(), strict=True))
    if multi_label:
        found = tuple(name for name, value in named.items() if value > 0.5)
        return Prediction(label=None, probabilities=named, value=None, labels=found)
    best = labels[int(probabilities.argmax())]
    return Prediction(label=best, probabilities=named, value=None, labels=(best,))
