"""The packaged general student: a small BERT distilled from the packaged encoder on plain text.

One file holds the encoder's weights and the projections W_h and W_e in fp16, and in its metadata the model's
configuration and a digest of the vocabulary. A task adds a new classifier. STUDENT_CARD.md describes its training.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.errors import ModelError

STUDENT_PATH = Path(__file__).with_name("student.safetensors")
STUDENT_SHA256 = "46459ed133b207c23b1dc16f33130731ab8f16908c4155ba4bb0a0723ede4e99"
FORMAT = "general-student-1"
PROJECTIONS_PREFIX, ENCODER_PREFIX = "projections.", "bert."
LEFT_OUT = "bert.pooler."
"""Weights that are not stored: general distillation does not train the pooler; a task starts with a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedStudent:
    """Contents of the file. weights, projections: fp32, named as in `BertForSequenceClassification` and `Projections`;
    config: fields of a `BertConfig`; vocabulary_sha256: see `vocabulary_digest`."""

    weights: Mapping[str, Tensor]
    projections: Mapping[str, Tensor]
    config: Mapping[str, Any]
    vocabulary_sha256: str

    def new_classifier(self, num_labels: int, **options: Any) -> Any:
        """A `BertForSequenceClassification` with this encoder; pooler and classifier are initialised from torch's
        global random state. options: more fields of `BertConfig`. Raises ModelError."""
        from transformers import BertConfig, BertForSequenceClassification

        model = BertForSequenceClassification(BertConfig(**(dict(self.config) | options | {"num_labels": num_labels})))
        missing, unexpected = model.load_state_dict(dict(self.weights), strict=False)
        if problem := [name for name in missing if not name.startswith(("classifier.", LEFT_OUT))] + unexpected:
            raise ModelError(
                f"the embedded student has missing or unexpected weights, such as {problem[0]}; {_REINSTALL}"
            )
        return model


_REINSTALL = "reinstall the package"


def embedded_student() -> EmbeddedStudent:
    """The packaged student. Raises ModelError when its file is missing or not identical to the released one."""
    return read_student(STUDENT_PATH, STUDENT_SHA256)


def read_student(path: Path, sha256: str) -> EmbeddedStudent:
    """The student in `path`, whose digest must be `sha256`. Raises ModelError."""
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(
            f"the embedded student cannot be read ({path.name}: {error.strerror}); {_REINSTALL}"
        ) from error
    if found != sha256:
        raise ModelError(
            f"the embedded student at {path} has changed (sha256 {found[:16]}…, expected {sha256[:16]}…); {_REINSTALL}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is not a safetensors file: {error}") from error
    if metadata.get("format") != FORMAT:
        raise ModelError(f"{path} has format {metadata.get('format')}, but this version reads {FORMAT}; {_REINSTALL}")
    return EmbeddedStudent(
        weights={name: value for name, value in tensors.items() if name.startswith(ENCODER_PREFIX)},
        projections={
            name.removeprefix(PROJECTIONS_PREFIX): value
            for name, value in tensors.items()
            if name.startswith(PROJECTIONS_PREFIX)
        },
        config=json.loads(metadata["config"]),
        vocabulary_sha256=metadata["vocabulary_sha256"],
    )


def write_student(path: Path, model: Any, projections: Mapping[str, Tensor], tokenizer: Any) -> str:
    """Write the encoder of a `BertForSequenceClassification` and its projections in fp16; returns the file's sha256."""
    from safetensors.torch import save_file

    kept = {
        name: value
        for name, value in model.state_dict().items()
        if name.startswith(ENCODER_PREFIX) and not name.startswith(LEFT_OUT)
    }
    kept |= {PROJECTIONS_PREFIX + name: value for name, value in projections.items()}
    config = {name: getattr(model.config, name) for name in _CONFIG_FIELDS}
    metadata = {
        "format": FORMAT,
        "config": json.dumps(config),
        "vocabulary_sha256": vocabulary_digest(tokenizer.get_vocab()),
    }
    save_file({name: kept[name].detach().cpu().to(torch.float16).contiguous() for name in sorted(kept)}, path, metadata)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def vocabulary_digest(vocabulary: Mapping[str, int]) -> str:
    """sha256 of the tokens in id order: equal digests mean that ids stand for the same tokens."""
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    return hashlib.sha256("\n".join(tokens).encode()).hexdigest()


_CONFIG_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
)
