"""Words and their tokens."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from augment_service.engine.words import WordSplitter
from tests.support.models import save_random_model


def test_padding_and_truncation_of_a_tokenizer_do_not_change_the_words(tmp_path: Path) -> None:
    folder = save_random_model("bert-uncased", tmp_path)
    text = "the quick brown fox jumps over the lazy dog"
    expected = WordSplitter(AutoTokenizer.from_pretrained(folder)).split([text])
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.enable_padding(length=32)
    backend.enable_truncation(4)
    backend.save(str(folder / "tokenizer.json"))
    found = WordSplitter(AutoTokenizer.from_pretrained(folder)).split([text])
    assert found == expected
    assert [word.text for word in found[0]] == text.split()
    assert text == " ".join(text[word.start : word.end] for word in found[0])
