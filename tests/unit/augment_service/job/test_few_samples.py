"""A run that could replace next to nothing says why."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from augment_service.augmenter import Augmenter
from augment_service.config import RunConfig
from augment_service.job.command import _why_so_few
from shared.totals import Totals
from tests.support.models import save_random_model, save_random_vectors


def why(samples: int, **options: Any) -> str:
    config = RunConfig.build({"input": ("a.csv",), "output": "b", "n_a": 4, "text_column": ("text",), **options})
    return _why_so_few(SimpleNamespace(config=config), Totals(rows=100, samples=samples))  # type: ignore[arg-type]


def test_no_word_in_the_script_of_the_default() -> None:
    assert why(0).startswith("no row has a word that may be replaced under --words reference")
    assert "--words all-letters" in why(0)
    assert why(39).startswith("most rows have no word")
    assert why(40) == ""
    assert why(0, emit="candidates") == ""
    # One sample a row: each has a word, though not 20 different texts. And nothing was to be replaced.
    assert why(100, n_a=20) == ""
    assert why(0, p_t=0.0) == ""
    assert "masked LM and vectors for the language of the text" in why(0, words="all-letters")


@pytest.mark.parametrize("text", ["这部电影很好看", "我喜欢这个故事"])
def test_the_switch_that_it_names_finds_words(tmp_path: Path, text: str) -> None:
    model, vectors = save_random_model("bert-chinese", tmp_path / "m"), save_random_vectors(tmp_path / "glove.txt")
    augmenter = Augmenter(str(model), str(vectors), device="cpu", dtype="fp32")
    default, letters = (augmenter.augment([text], n_a=2, k=3, words=words)[0] for words in ("reference", "all-letters"))
    assert not default.samples
    assert len(letters.samples) == 2
