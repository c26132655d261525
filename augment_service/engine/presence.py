"""Whether the models that a command names are there, checked before anything slow starts."""

from __future__ import annotations

from pathlib import Path

from augment_service.engine.vector_files import file_of
from shared.embedded import EMBEDDED
from shared.errors import ModelError
from shared.model_folder import model_folder


def check_models_exist(mlm: str, glove: str) -> None:
    """Raises ModelError for a masked LM or word vectors that are not on this machine. Loads nothing."""
    if mlm != EMBEDDED:
        model_folder(mlm, "--mlm")
    if glove != EMBEDDED and not Path(glove).is_dir() and file_of(glove) is None:
        raise ModelError(
            f"--glove {glove}: no such file; needs GloVe or word2vec text, word2vec or fastText .bin, or `embedded`"
        )
