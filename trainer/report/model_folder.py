"""Size and shape of a saved model, read from its files without loading it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import InputError, ModelError
from shared.model_folder import reading_model, weight_files


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The numbers that decide a model's speed; `pieces` is the size of its vocabulary. None where unknown."""

    type: str | None
    layers: int | None
    hidden: int | None
    ffn: int | None
    heads: int | None
    pieces: int | None

    def __str__(self) -> str:
        return f"{self.layers} layers × {self.hidden}, FFN {self.ffn}, {self.heads} heads"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A saved model. `parameters` are counted in the headers of its weight files."""

    folder: Path
    parameters: int
    weight_bytes: int
    shape: ModelShape


def read_model_folder(folder: Path) -> ModelFolder:
    """Read size and shape of a saved model. Raises InputError."""
    config = read_object(folder / "config.json", "not a model folder (it has no config.json)")
    weights = weight_files(folder)
    if not weights:
        raise InputError(f"{folder} has no weights (model.safetensors or pytorch_model.bin)")
    return ModelFolder(
        folder=folder,
        parameters=sum(_count_weights(path) for path in weights),
        weight_bytes=sum(path.stat().st_size for path in weights),
        shape=ModelShape(
            type=config.get("model_type"),
            layers=config.get("num_hidden_layers"),
            hidden=config.get("hidden_size"),
            ffn=config.get("intermediate_size"),
            heads=config.get("num_attention_heads"),
            pieces=config.get("vocab_size"),
        ),
    )


def read_object(path: Path, missing: str | None = None) -> dict[str, Any]:
    """A JSON object from a file. `missing`: message if the file does not exist. Raises InputError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"--runs {path.parent}: {missing or f'{path.name} is missing'}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or f'not valid JSON ({error})'}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} should contain a JSON object")
    return value


def _count_weights(path: Path) -> int:
    """Weights in a safetensors file, from its header: 8 bytes of length, then JSON with the shape of every tensor.

    Those of a pytorch_model.bin are counted without reading their values.
    """
    if path.suffix == ".bin":
        return _count_pickled(path)
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        return sum(math.prod(one["shape"]) for name, one in header.items() if name != "__metadata__")
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from error


def _count_pickled(path: Path) -> int:
    import torch

    try:
        with reading_model(str(path.parent), "--runs"):
            weights = torch.load(path, map_location="meta", weights_only=True)
    except ModelError as error:
        raise InputError(str(error)) from error
    # Tied weights are listed under each of their names, but share a storage.
    unique = {(value.untyped_storage()._cdata, value.storage_offset()): value for value in weights.values()}
    return sum(value.numel() for value in unique.values())
