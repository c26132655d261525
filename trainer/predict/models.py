"""A model to predict with, in whatever format it is stored: a BERT folder, another architecture, or an ONNX file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shared.errors import ModelError, UsageError
from shared.model_folder import MULTI_LABEL
from shared.storage.foreign_files import START_BYTES, what_came_instead
from shared.storage.objects import is_remote
from shared.storage.remote_model import fetched_model
from trainer.any_classifier import AnyClassifier, is_bert, like_length_batches, load_any_classifier
from trainer.data.tasks import TaskSpec, glue_spec
from trainer.export.onnx_file import open_session
from trainer.inference import Classifier, load_student
from trainer.labels import match_outputs
from trainer.models import load_tokenizer
from trainer.predict.config import PredictConfig

Floats = NDArray[np.float32]


class Predictor(Protocol):
    """A model that predicts."""

    @property
    def multi_label(self) -> bool:
        """Whether a text can have several classes."""
        ...

    def labels(self, task: str | None) -> tuple[str, ...] | None:
        """Names of the classes in the order of the logits; None for regression. Raises ModelError."""
        ...

    def logits(self, first: Sequence[str], second: Sequence[str] | None, batch_rows: int) -> Floats:
        """(texts, C) float32, in the order of the texts."""
        ...


def open_predictor(config: PredictConfig) -> Predictor:
    """The model of --model. Raises ModelError, UsageError."""
    if config.model.endswith(".onnx"):
        return _OnnxFile(_onnx_path(config.model), config.tokenizer, config.max_length)
    is_folder = is_remote(config.model) or Path(config.model).is_dir()
    if is_folder and is_bert(config.model, "--model"):
        return _Bert(load_student(config.model, device=config.device, dtype=config.dtype, max_length=config.max_length))
    return _Other(
        load_any_classifier(config.model, "--model", device=config.device, dtype=config.dtype), config.max_length
    )


class _Bert:
    def __init__(self, model: Classifier) -> None:
        self._model = model

    @property
    def multi_label(self) -> bool:
        return self._model.spec(None).multi_label

    def labels(self, task: str | None) -> tuple[str, ...] | None:
        return self._model.spec(task).labels

    def logits(self, first: Sequence[str], second: Sequence[str] | None, batch_rows: int) -> Floats:
        return self._model.logits(first, second, batch_rows)


class _Other:
    def __init__(self, model: AnyClassifier, max_length: int | None) -> None:
        self._model, self._requested = model, max_length
        model.fitting_length(max_length, has_pairs=False)

    @property
    def multi_label(self) -> bool:
        return self._model.spec().multi_label

    def labels(self, task: str | None) -> tuple[str, ...] | None:
        return self._model.spec(task).labels

    def logits(self, first: Sequence[str], second: Sequence[str] | None, batch_rows: int) -> Floats:
        length = self._model.fitting_length(self._requested, second is not None)
        return self._model.logits(first, second, length, batch_rows)


class _OnnxFile:
    """A file of `trainer export`, or another with the inputs of a transformers classifier and an output `logits`."""

    def __init__(self, path: Path, tokenizer: str | None, max_length: int | None) -> None:
        if not path.is_file():
            raise ModelError(f"--model {path}: no such file")
        with path.open("rb") as file:
            if (kind := what_came_instead(file.read(START_BYTES))) is not None:
                raise ModelError(f"--model {path} is {kind}")
        self._path, self._facts = path, _facts(path)
        folder = self._tokenizer_folder(tokenizer)
        self._tokenizer = load_tokenizer(str(folder))
        self._session: Any = open_session(path)
        self._names = {one.name for one in self._session.get_inputs()}
        exported = int(self._facts.get("max_length", 512))
        if max_length is not None and max_length > exported and self._facts:
            raise UsageError(f"--max-length {max_length}: {path} was exported for at most {exported} tokens")
        self._max_length = max_length or exported
        self._names_of_classes = self._labels(folder)
        recorded = self._facts.get("problem_type") or _json(folder / "config.json").get("problem_type")
        self._multi_label = recorded == MULTI_LABEL

    @property
    def multi_label(self) -> bool:
        return self._multi_label

    def labels(self, task: str | None) -> tuple[str, ...] | None:
        names = self._names_of_classes
        if task is None or names is None:
            return names
        known: TaskSpec = glue_spec(task)
        if known.labels is None or len(known.labels) != len(names):
            raise ModelError(f"--model {self._path} has {len(names)} classes, which does not fit --task {task}")
        return match_outputs(known.name, names, known.labels, f"--model {self._path}")

    def logits(self, first: Sequence[str], second: Sequence[str] | None, batch_rows: int) -> Floats:
        answers: list[tuple[NDArray[np.int64], Floats]] = []
        for rows, arrays in like_length_batches(self._tokenizer, first, second, self._max_length, batch_rows):
            given = {name: array for name, array in arrays.items() if name in self._names}
            answers.append((rows, self._session.run(["logits"], given)[0]))
        found = np.zeros((len(first), answers[0][1].shape[1] if answers else 1), np.float32)
        for rows, values in answers:
            found[rows] = values
        return found

    def _tokenizer_folder(self, named: str | None) -> Path:
        recorded = Path(str(self._facts["model"])) if "model" in self._facts else None
        near = [self._path.parent, self._path.parent.parent / "model"]
        candidates = [Path(named)] if named else [*near, *([recorded] if recorded else [])]
        for folder in candidates:
            if (folder / "tokenizer.json").is_file():
                return folder
        raise ModelError(
            f"--model {self._path}: no tokenizer.json in {', '.join(map(str, candidates))}; name the folder of the "
            "model's tokenizer with --tokenizer"
        )

    def _labels(self, folder: Path) -> tuple[str, ...] | None:
        """The classes that the export recorded, else those of the tokenizer's folder, else LABEL_0, LABEL_1, ..."""
        width = self._session.get_outputs()[0].shape[-1]
        named = self._facts.get("labels") or _json(folder / "config.json").get("id2label") or {}
        count = width if isinstance(width, int) else len(named)
        if count <= 1 and self._facts.get("problem_type") != MULTI_LABEL:
            return None
        return tuple(str(named.get(str(index), f"LABEL_{index}")) for index in range(count))


def _onnx_path(model: str) -> Path:
    """The file on this machine; in an object store, the tokenizer and its config.json must be next to it."""
    if not is_remote(model):
        return Path(model)
    folder, _, name = model.rpartition("/")
    return Path(fetched_model(folder, "--model")) / name


def _facts(path: Path) -> dict[str, Any]:
    """The facts that `trainer export` wrote next to the file; empty for other files."""
    return _json(path.with_suffix(".json"))


def _json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return loaded if isinstance(loaded, dict) else {}
