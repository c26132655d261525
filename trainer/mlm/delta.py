"""A trained masked LM as the difference from its encoder, small enough to ship (see shared.embedded.delta)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.embedded import EMBEDDED
from shared.embedded.delta import DELTA_PATH, FORMAT, read_delta
from shared.embedded.wheels import ENCODER_SHA256
from shared.errors import UsageError
from trainer.mlm.model import TrainableMaskedLM


def start_from_delta(model: TrainableMaskedLM, source: str) -> None:
    """Load adapters, embedding change and head from a delta: `embedded` (the one that ships) or a file.

    Raises ModelError when it cannot be read, UsageError when its ranks differ.
    """
    parts = read_delta(DELTA_PATH if source == EMBEDDED else Path(source))
    own = _own_parts(model)
    ranks = {
        "--adapters": next((value.shape[0] for name, value in parts.items() if name.endswith(".weight.a")), 0),
        "--embedding-rank": parts["embeddings.b"].shape[0],
    }
    with torch.no_grad():
        for name, (weight, scale) in own.items():
            if name not in parts or parts[name].shape != weight.shape:
                needed = " ".join(f"{flag} {rank}" for flag, rank in ranks.items())
                raise UsageError(f"--start-from {source} has different ranks; continue with {needed}")
            weight.copy_(parts[name] / scale)


def save_delta(model: TrainableMaskedLM, path: Path) -> int:
    """Write adapters, embedding change and head in fp16; returns the file size in bytes. Requires adapters."""
    parts = {name: weight * scale for name, (weight, scale) in _own_parts(model).items()}
    halves = {name: value.detach().to(torch.float16).contiguous().cpu() for name, value in parts.items()}
    save_file(halves, path, metadata={"format": FORMAT, "encoder_sha256": ENCODER_SHA256})
    return path.stat().st_size


def _own_parts(model: TrainableMaskedLM) -> dict[str, tuple[Tensor, float]]:
    """The trained weights under their names in a delta file, each with its scale: file value = weight x scale."""
    from peft.tuners.lora import Linear as LoraLinear

    parts: dict[str, tuple[Tensor, float]] = {
        "embeddings.a": (model.delta_a, 1.0),
        "embeddings.b": (model.delta_b, 1.0),
        "head.transform.dense.weight": (model.transform.weight, 1.0),
        "head.transform.dense.bias": (model.transform.bias, 1.0),
        "head.transform.LayerNorm.weight": (model.norm.weight, 1.0),
        "head.transform.LayerNorm.bias": (model.norm.bias, 1.0),
        "head.bias": (model.bias, 1.0),
    }
    for name, module in model.encoder.named_modules():
        if isinstance(module, LoraLinear):
            parts[f"{name}.weight.a"] = (module.lora_A["default"].weight, 1.0)
            parts[f"{name}.weight.b"] = (module.lora_B["default"].weight, float(module.scaling["default"]))
    return parts
