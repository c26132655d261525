"""The actor of the word vectors: Ray does not order the calls of the driver and those of masked-LM actors."""

from __future__ import annotations

from pathlib import Path

import pytest

from augment_service.job.glove_actor import GloveWorker
from shared.errors import ModelError
from tests.support.models import save_random_vectors


def test_a_question_that_comes_before_the_load_is_answered(tmp_path: Path) -> None:
    path = str(save_random_vectors(tmp_path / "glove.txt"))
    early, late = GloveWorker(path, None), GloveWorker(path, None)
    answer = early.nearest(["honestly"], 3)
    facts = late.load()
    assert answer == late.nearest(["honestly"], 3)
    assert early.load() == facts


def test_an_early_question_about_vectors_that_are_missing_is_an_error_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--glove"):
        GloveWorker(str(tmp_path / "gone.txt"), None).nearest(["honestly"], 3)
