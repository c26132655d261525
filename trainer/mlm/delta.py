"""A trained masked LM as the difference from its encoder, small enough to ship (see shared.embedded.delta)."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from shared.embedded.delta import FORMAT
from shared.embedded.wheels import ENCODER_SHA256
from trainer.mlm.model import TrainableMaskedLM


def save_delta(model: TrainableMaskedLM, path: Path) -> int:
    """Write adapters, embedding change and head in fp16; returns the file's bytes. Needs a model with adapters."""
    from peft.tuners.lora import Linear as LoraLinear

    parts: dict[str, Tensor] = {"embeddings.a": model.delta_a, "embeddings.b": model.delta_b}
    for name, module in model.encoder.named_modules():
        if isinstance(module, LoraLinear):
            parts[f"{name}.weight.a"] = module.lora_A["default"].weight
            parts[f"{name}.weight.b"] = module.lora_B["default"].weight * module.scaling["default"]
    parts |= {
        "head.transform.dense.weight": model.transform.weight,
        "head.transform.dense.bias": model.transform.bias,
        "head.transform.LayerNorm.weight": model.norm.weight,
        "head.transform.LayerNorm.bias": model.norm.bias,
        "head.bias": model.bias,
    }
    halves = {name: value.detach().to(torch.float16).contiguous().cpu() for name, value in parts.items()}
    save_file(halves, path, metadata={"format": FORMAT, "encoder_sha256": ENCODER_SHA256})
    return path.stat().st_size
