"""Logits of a sequence classifier of any architecture that transformers loads, with its own tokenizer.

BERT models run through `trainer.inference`, which packs the same work into fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shared.compute.hardware import resolve_device, resolve_dtype
from shared.errors import ModelError, UsageError
from shared.model_folder import check_tokenizer_fits, check_weights, model_folder, reading_model
from trainer.data.tasks import TaskSpec, sequence_length
from trainer.models import load_tokenizer, read_config, teacher_spec
from trainer.positions import longest_input

Floats = NDArray[np.float32]


class AnyClassifier:
    """A classifier or regressor in eval mode. Make one with `load_any_classifier`."""

    def __init__(self, model: Any, tokenizer: Any, path: str, device: str, dtype: torch.dtype) -> None:
        self.path, self.device = path, device
        self.tokenizer = tokenizer
        self.model = model.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.longest = longest_input(model, tokenizer)

    def spec(self, task: str | None = None) -> TaskSpec:
        """What the model predicts. Raises ModelError if it does not fit `task`."""
        return teacher_spec(self.model, task, self.path)

    def fitting_length(self, requested: int | None, has_pairs: bool) -> int:
        """Longest input in tokens. Raises UsageError when the model has fewer positions than requested."""
        if requested is not None and requested > self.longest:
            raise UsageError(f"--max-length {requested}: {self.path} reads at most {self.longest} tokens")
        return min(sequence_length(requested, has_pairs), self.longest)

    @torch.no_grad()
    def logits(
        self, first: Sequence[str], second: Sequence[str] | None, max_length: int, batch_rows: int = 64
    ) -> Floats:
        """(texts, C) float32 before softmax, in the order of the texts, computed in batches of similar length."""
        answers = np.zeros((len(first), self.model.config.num_labels), np.float32)
        for rows, arrays in like_length_batches(self.tokenizer, first, second, max_length, batch_rows):
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in arrays.items()}
            answers[rows] = self.model(**tensors).logits.float().cpu().numpy()
        return answers


def load_any_classifier(
    path: str, option: str = "--teacher", device: str = "auto", dtype: str = "auto"
) -> AnyClassifier:
    """Load a folder, a run's output or a hub id. option: the flag that named it. Raises ModelError."""
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = model_folder(path, option)
    with reading_model(folder, option):
        config = AutoConfig.from_pretrained(folder)
        if not any("SequenceClassification" in name for name in config.architectures or ()):
            raise ModelError(
                f"{option} {path} is {', '.join(config.architectures or ['a model of unknown architecture'])}, "
                "not a sequence classification model"
            )
        model, problems = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    check_weights(model, path, option, problems)
    tokenizer = load_tokenizer(folder, option)
    check_tokenizer_fits(tokenizer, model.get_input_embeddings().weight.shape[0], path, option)
    where = resolve_device(device)
    return AnyClassifier(model, tokenizer, path, where, resolve_dtype(dtype, where))


def is_bert(path: str, option: str = "--teacher") -> bool:
    """Whether a model is a BERT, which this package runs itself. Raises ModelError when it cannot be read."""
    return bool(read_config(path, option).model_type == "bert")


def like_length_batches(
    tokenizer: Any, first: Sequence[str], second: Sequence[str] | None, max_length: int, batch_rows: int
) -> Iterator[tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]]:
    """(row numbers, input name -> (rows, length) int64) from the shortest rows to the longest, padded.

    The inputs are those in the tokenizer's `model_input_names`.
    """
    if not len(first):
        return
    encoded = tokenizer(
        list(first),
        None if second is None else list(second),
        truncation=True if second is None else "longest_first",
        max_length=max_length,
        padding=False,
        verbose=False,
    )
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in tokenizer.model_input_names]
    fill = {"input_ids": tokenizer.pad_token_id or 0, "attention_mask": 0, "token_type_ids": 0}
    lengths = np.asarray([len(ids) for ids in encoded["input_ids"]])
    order = np.argsort(lengths, kind="stable").astype(np.int64)
    for start in range(0, len(order), batch_rows):
        rows = order[start : start + batch_rows]
        width = int(lengths[rows].max())
        arrays = {name: np.full((len(rows), width), fill[name], np.int64) for name in names}
        for name, array in arrays.items():
            for place, row in enumerate(rows):
                cells = encoded[name][row]
                array[place, : len(cells)] = cells
        yield rows, arrays
