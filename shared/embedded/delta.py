"""The embedded masked LM: the packaged encoder plus a small trained delta, merged into a plain model.

The delta file holds, in fp16: low-rank updates of the encoder's linear layers (`NAME.a` (r, in), `NAME.b` (out, r):
W + b a), one of the tied embeddings (`embeddings.a` (tokens, r), `embeddings.b` (r, hidden)), and the prediction head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from shared.embedded.wheels import ENCODER_SHA256, embedded_encoder_path
from shared.errors import ModelError

DELTA_PATH = Path(__file__).with_name("masked_lm_delta.safetensors")
FORMAT = "masked-lm-delta-1"


def embedded_masked_lm() -> tuple[Any, Any]:
    """`BertForMaskedLM` in fp32 and its tokenizer. Raises ModelError if a part is missing or does not match."""
    from transformers import AutoTokenizer

    encoder = embedded_encoder_path()
    return merge_delta(encoder, DELTA_PATH), AutoTokenizer.from_pretrained(encoder)


def merge_delta(encoder: Path, delta: Path) -> Any:
    """The encoder's weights with the delta added, as a plain `BertForMaskedLM` in eval mode."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, BertForMaskedLM

    parts = read_delta(delta)
    weights = {f"bert.{name}": value.float() for name, value in load_file(encoder / "model.safetensors").items()}
    for name in sorted(name.removesuffix(".a") for name in parts if name.endswith(".a")):
        first, second = parts[f"{name}.a"], parts[f"{name}.b"]
        is_table = name == "embeddings"
        target = "bert.embeddings.word_embeddings.weight" if is_table else f"bert.{name}"
        change = first @ second if is_table else second @ first
        weights[target] = weights[target] + change
    weights |= {f"cls.predictions.{name[5:]}": value for name, value in parts.items() if name.startswith("head.")}
    weights["cls.predictions.decoder.weight"] = weights["bert.embeddings.word_embeddings.weight"]
    weights["cls.predictions.decoder.bias"] = weights["cls.predictions.bias"]
    config = AutoConfig.from_pretrained(encoder, architectures=["BertForMaskedLM"], tie_word_embeddings=True)
    model = BertForMaskedLM(config)
    missing, _ = model.load_state_dict(weights, strict=False)
    if [name for name in missing if not name.endswith("position_ids")]:
        raise ModelError(f"the embedded masked LM is incomplete: {missing[0]} is missing")
    return model.eval()


def read_delta(path: Path) -> dict[str, Tensor]:
    """The tensors of a delta file, in fp32. Raises ModelError if it is missing, damaged or made for another encoder."""
    if not path.is_file():
        raise ModelError(
            f"the embedded masked LM is missing ({path.name}); reinstall the package or choose a model with --mlm"
            if path == DELTA_PATH
            else f"{path}: no such file"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT or metadata.get("encoder_sha256") != ENCODER_SHA256:
                raise ModelError(
                    f"{path.name} was made for another encoder or version; "
                    + (
                        "reinstall the package"
                        if path == DELTA_PATH
                        else f"this version needs one for the encoder with sha256 {ENCODER_SHA256}"
                    )
                )
            return {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path} is not a masked-LM delta: {error}") from error
