"""Loading and saving BERT models: teachers, encoders, classifiers and their tokenizers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, BertModel
from transformers.utils import logging as transformers_logging

from shared.errors import ModelError
from shared.glue import get_task
from trainer.data.tasks import CLASSIFICATION_METRICS, REGRESSION_METRICS, TaskSpec
from trainer.model_card import write_model_card
from trainer.result import RunResult
from trainer.scores import ATTENTION

BLOCK_BYTES = 1 << 20


def load_tokenizer(path: str) -> Any:
    """The fast tokenizer of a model. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{path} has no tokenizer: {str(error).splitlines()[0]}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path} has no fast tokenizer (tokenizer.json)")
    return tokenizer


def load_classifier(path: str, num_labels: int | None = None, option: str = "--teacher") -> Any:
    """A `BertForSequenceClassification` in fp32. With `num_labels`, an encoder gets a new classifier.

    option: the flag that named it, for messages. Raises ModelError.
    """
    config = _bert_config(path, option)
    architectures = config.architectures or []
    if num_labels is None and not any("SequenceClassification" in name for name in architectures):
        raise ModelError(
            f"{option} {path} is {', '.join(architectures) or 'a model without a named architecture'}, not a sequence "
            "classification model; make one with `python -m trainer teacher`"
        )
    options: dict[str, Any] = {"attn_implementation": ATTENTION, "dtype": torch.float32}
    if num_labels is not None:
        options |= {"num_labels": num_labels, "ignore_mismatched_sizes": True}
    model, problems = BertForSequenceClassification.from_pretrained(path, output_loading_info=True, **options)
    new = [name for name in problems["missing_keys"] if not name.startswith(("classifier.", "bert.pooler."))]
    if new or (num_labels is None and problems["missing_keys"]):
        raise ModelError(f"{option} {path} lacks weights such as {(new or sorted(problems['missing_keys']))[0]}")
    return model


def load_encoder(path: str) -> Any:
    """A `BertModel` without pooler, in fp32, as the teacher of general distillation. Raises ModelError."""
    _bert_config(path, "--teacher")
    return BertModel.from_pretrained(path, add_pooling_layer=False, attn_implementation=ATTENTION, dtype=torch.float32)


def teacher_spec(model: Any, task: str | None, path: str) -> TaskSpec:
    """What a fine-tuned teacher predicts, from its configuration. Raises ModelError when it does not fit `task`."""
    config = model.config
    is_regression = config.num_labels == 1
    names = None if is_regression else tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if task is None:
        if names is None:
            return TaskSpec(name="regression", labels=None, metrics=REGRESSION_METRICS)
        return TaskSpec(name="classification", labels=names, metrics=CLASSIFICATION_METRICS)
    known = get_task(task)
    if (known.labels is None) != is_regression or (known.labels and len(known.labels) != config.num_labels):
        wanted = "one number (regression)" if known.labels is None else f"{len(known.labels)} classes"
        raise ModelError(f"--teacher {path} has {config.num_labels} outputs, --task {known.name} needs {wanted}")
    # The same labels in another order: the order of the teacher's logits decides.
    has_own_order = known.labels is not None and names is not None and set(names) == set(known.labels)
    return TaskSpec(name=known.name, labels=names if has_own_order else known.labels, metrics=known.metrics)


def save_classifier(
    model: Any, tokenizer: Any, spec: TaskSpec | None, folder: Path, result: RunResult, recipe: Mapping[str, Any]
) -> None:
    """Write a folder that plain transformers loads, with tokenizer and model card, completely or not at all.

    result, recipe: contents of the model card (see trainer.model_card).
    """
    temporary = folder.with_name(folder.name + ".partial")
    if spec is not None:
        model.config.problem_type = "regression" if spec.labels is None else "single_label_classification"
        if spec.labels is not None:
            model.config.id2label = dict(enumerate(spec.labels))
            model.config.label2id = {name: index for index, name in enumerate(spec.labels)}
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    write_model_card(temporary, result, recipe)
    replace_folder(temporary, folder)


def replace_folder(temporary: Path, folder: Path) -> None:
    """Move `temporary` to `folder`, replacing what is there."""
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)


def count_parameters(model: nn.Module) -> int:
    """Weights of a model, tied ones counted once."""
    return sum(weight.numel() for weight in model.parameters())


def fingerprint(folder: str) -> str:
    """sha256 of a model folder's configuration and weights. Raises ModelError."""
    digest = hashlib.sha256()
    for name in ("config.json", "model.safetensors"):
        path = Path(folder) / name
        if not path.is_file():
            raise ModelError(f"{folder} has no {name}: it is not a model folder")
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _bert_config(path: str, option: str) -> Any:
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(path)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{option} {path}: {str(error).splitlines()[0]}") from error
    if config.model_type != "bert":
        raise ModelError(f"{option} {path} is a {config.model_type}; distillation works with BERT models")
    return config
