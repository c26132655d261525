"""Loading and saving BERT models: teachers, encoders, classifiers and their tokenizers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertForSequenceClassification, BertModel
from transformers.utils import logging as transformers_logging

from shared.errors import ModelError, UsageError
from shared.glue import get_task
from shared.model_folder import (
    MULTI_LABEL,
    check_tokenizer_fits,
    check_tokenizer_is_fast,
    check_weights,
    model_folder,
    reading_model,
)
from trainer.conversion import KINDS, as_bert_encoder, is_like_bert
from trainer.data.tasks import (
    CLASSIFICATION_METRICS,
    MULTI_LABEL_METRICS,
    REGRESSION_METRICS,
    TaskSpec,
)
from trainer.labels import match_outputs, renamed
from trainer.model_card import write_model_card
from trainer.result import RunResult
from trainer.scores import ATTENTION

TYPES = "token_type_ids"


def load_tokenizer(path: str, option: str = "model") -> Any:
    """The fast tokenizer of a model. option: the flag that named it, for messages. Raises ModelError."""
    path = model_folder(path, option)
    with reading_model(path, f"tokenizer of {option}"):
        tokenizer = AutoTokenizer.from_pretrained(path)
    check_tokenizer_is_fast(tokenizer, path, option)
    return tokenizer


def load_classifier(path: str, num_labels: int | None = None, option: str = "--teacher") -> Any:
    """A `BertForSequenceClassification` in fp32. With `num_labels`, an encoder gets a new classifier.

    option: the flag that named it, for messages. Raises ModelError.
    """
    path = model_folder(path, option)
    config = read_config(path, option)
    if config.model_type != "bert":
        raise ModelError(f"{option} {path} is a {config.model_type}; distillation works with BERT models")
    architectures = config.architectures or []
    if num_labels is None and not any("SequenceClassification" in name for name in architectures):
        raise ModelError(
            f"{option} {path} is {', '.join(architectures) or 'a model of unknown architecture'}, not a sequence "
            "classification model; train one with `python -m trainer teacher`"
        )
    # check_weights reports weights of another shape.
    options: dict[str, Any] = {
        "attn_implementation": ATTENTION,
        "dtype": torch.float32,
        "ignore_mismatched_sizes": True,
    }
    if num_labels is not None:
        options["num_labels"] = num_labels
    with reading_model(path, option):
        model, problems = BertForSequenceClassification.from_pretrained(path, output_loading_info=True, **options)
    check_weights(model, path, option, problems, () if num_labels is None else ("classifier.", "bert.pooler."))
    return _in_own_memory(model)


def load_encoder(path: str, tokenizer: Any) -> Any:
    """A `BertModel` without pooler, in fp32, as the teacher of general distillation. Raises ModelError.

    tokenizer: the teacher's. The teacher may be of another architecture that `trainer.conversion` converts.
    """
    path = model_folder(path, "--teacher")
    config = read_config(path, "--teacher")
    is_bert = config.model_type == "bert"
    if not is_bert and not is_like_bert(config):
        known = ", ".join(KINDS)
        raise ModelError(f"--teacher {path} is a {config.model_type}; distillation works with bert, {known}")
    options: dict[str, Any] = {"output_loading_info": True, "dtype": torch.float32, "ignore_mismatched_sizes": True}
    with reading_model(path, "--teacher"):
        if is_bert:
            options |= {"add_pooling_layer": False, "attn_implementation": ATTENTION}
            model, problems = BertModel.from_pretrained(path, **options)
        else:
            model, problems = AutoModel.from_pretrained(path, **options)
    # The pooler is not used, so it may be missing.
    check_weights(model, path, "--teacher", problems, ("pooler.",))
    return _in_own_memory(model if is_bert else as_bert_encoder(model, names_types(tokenizer)))


def _in_own_memory(model: Any) -> Any:
    """The model with its weights copied out of the file, in which they are not aligned.

    The last digits of a product may depend on alignment, and so on how the same weights were saved.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()
    return model


def names_types(tokenizer: Any) -> bool:
    """Whether a tokenizer returns token types for its model."""
    return TYPES in tokenizer.model_input_names


def with_types(tokenizer: Any) -> Any:
    """The tokenizer, changed in place to return the token types of pairs.

    DistilBERT's does not. A student is a BERT trained with token types, so they are needed wherever it is loaded.
    """
    names = list(tokenizer.model_input_names)
    if TYPES not in names and any(tokenizer("a", "b", return_token_type_ids=True)[TYPES]):
        tokenizer.model_input_names = [names[0], TYPES, *names[1:]]
        # Saved with the tokenizer.
        tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    return tokenizer


def fitting_length(requested: int | None, default: int, config: Any, tokenizer: Any, path: str) -> int:
    """The longest input in tokens: --max-length, or the default as far as the model's positions allow.

    config: the model's. Raises UsageError when --max-length exceeds them, ModelError for a tokenizer with more tokens
    than the model embeds.
    """
    check_tokenizer_fits(tokenizer, config.vocab_size, path, "model")
    missing = [name for name in ("cls_token", "sep_token", "pad_token") if getattr(tokenizer, name) is None]
    if missing:
        raise ModelError(
            f"model {path}: its tokenizer has no {missing[0]}, so it does not belong to a BERT model; put the "
            "tokenizer that the model was trained with into the folder"
        )
    positions = int(config.max_position_embeddings)
    if requested is not None and requested > positions:
        raise UsageError(f"--max-length {requested}: {path} has {positions} positions; use at most {positions}")
    return requested or min(default, positions)


def teacher_spec(
    model: Any, task: str | None, path: str, option: str = "--teacher", label_map: str | None = None
) -> TaskSpec:
    """What a fine-tuned model predicts, from its configuration.

    option: the flag that named it. label_map: --label-map. Raises ModelError when it does not fit `task`.
    """
    config = model.config
    multi_label = config.problem_type == MULTI_LABEL
    is_regression = config.num_labels == 1 and not multi_label
    outputs = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if is_regression and label_map:
        raise UsageError(f"--label-map: {path} predicts a number and has no classes")
    names = None if is_regression else renamed(outputs, label_map, f"{option} {path}")
    if task is None:
        if names is None:
            return TaskSpec(name="regression", labels=None, metrics=REGRESSION_METRICS)
        if multi_label:
            return TaskSpec(name="multi-label", labels=names, metrics=MULTI_LABEL_METRICS, multi_label=True)
        return TaskSpec(name="classification", labels=names, metrics=CLASSIFICATION_METRICS)
    known = get_task(task)
    if multi_label:
        raise ModelError(f"{option} {path} predicts several labels per text, but --task {known.name} has one")
    if (known.labels is None) != is_regression or (known.labels and len(known.labels) != config.num_labels):
        wanted = "one number (regression)" if known.labels is None else f"{len(known.labels)} classes"
        raise ModelError(f"{option} {path} has {config.num_labels} outputs, but --task {known.name} needs {wanted}")
    labels = None
    if names is not None and known.labels is not None:
        # The order of the model's outputs decides.
        labels = match_outputs(known.name, names, known.labels, f"{option} {path}")
    return TaskSpec(name=known.name, labels=labels, metrics=known.metrics)


def save_classifier(
    model: Any, tokenizer: Any, spec: TaskSpec | None, folder: Path, result: RunResult, recipe: Mapping[str, Any]
) -> None:
    """Write a folder that plain transformers loads, with tokenizer and model card, completely or not at all.

    result, recipe: contents of the model card (see trainer.model_card).
    """
    temporary = folder.with_name(folder.name + ".partial")
    if spec is not None:
        model.config.problem_type = spec.problem_type
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


def fingerprint(model: nn.Module) -> str:
    """sha256 of a model's weights and buffers as loaded, however its files store them. On the CPU, in fp32."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 of a fast tokenizer's behaviour, apart from truncation and padding, which each call sets."""
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    rules |= {"truncation": None, "padding": None}
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def read_config(path: str, option: str) -> Any:
    """The configuration of a model, without its weights. Raises ModelError."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    folder = model_folder(path, option)
    with reading_model(folder, option):
        return AutoConfig.from_pretrained(folder)
