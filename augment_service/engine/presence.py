"""Checks that a command's models exist before anything slow starts."""

from __future__ import annotations

from shared.embedded import EMBEDDED
from shared.model_folder import model_folder
from shared.vector_path import check_vectors


def check_models_exist(mlm: str, glove: str) -> None:
    """Raises ModelError if the masked LM or word vectors are not on this machine. Loads nothing."""
    if mlm != EMBEDDED:
        model_folder(mlm, "--mlm")
    if glove != EMBEDDED:
        check_vectors(glove)
