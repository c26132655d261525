"""Pruned vocabularies: any text can be read, ids map back to the teacher's, and the tokenizer saves and loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ModelError, UsageError
from tests.support.models import save_random_model
from trainer.vocabulary import (
    PrunedVocabulary,
    choose_tokens,
    count_tokens,
    coverage,
    parse_prune_option,
    prune_student,
    prune_tokenizer,
    shared_vocabulary,
)

TEXTS = ["The quick brown fox jumps over the lazy dog.", "A movie that the dog likes!", "The plot, the ending."]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = save_random_model("bert-uncased", tmp_path_factory.mktemp("tokenizer"))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def pruned(tokenizer: Any) -> PrunedVocabulary:
    return choose_tokens(tokenizer, count_tokens(tokenizer, TEXTS), 0, other_parameters=0, hidden=100)


@pytest.fixture(scope="module")
def small(tokenizer: Any, pruned: PrunedVocabulary) -> Any:
    return prune_tokenizer(tokenizer, pruned)


def test_special_tokens_characters_and_frequent_tokens_stay(tokenizer: Any, pruned: PrunedVocabulary) -> None:
    kept = set(tokenizer.convert_ids_to_tokens(pruned.kept.tolist()))
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog"} <= kept
    assert {token for token in tokenizer.get_vocab() if len(token.removeprefix("##")) == 1} <= kept
    assert len(pruned) < len(tokenizer)
    assert (pruned.kept.diff() > 0).all()
    assert 0 < coverage(pruned, count_tokens(tokenizer, TEXTS)) <= 1


def test_the_most_frequent_tokens_stay_up_to_a_number(tokenizer: Any) -> None:
    counts = count_tokens(tokenizer, TEXTS)
    everything = choose_tokens(tokenizer, counts, len(tokenizer), other_parameters=0, hidden=100)
    least = len(choose_tokens(tokenizer, np.zeros_like(counts), 0, other_parameters=0, hidden=100))
    one_more = choose_tokens(tokenizer, counts, least + 1, other_parameters=0, hidden=100)
    assert least < len(one_more) == least + 1 <= len(everything)
    assert tokenizer.convert_tokens_to_ids("the") in one_more.kept
    with pytest.raises(UsageError, match="cannot be tokenized without"):
        choose_tokens(tokenizer, counts, least - 1, other_parameters=0, hidden=100)


@given(st.text(max_size=60))
def test_any_text_reads_the_same_through_both_vocabularies(
    tokenizer: Any, pruned: PrunedVocabulary, small: Any, text: str
) -> None:
    ids = torch.tensor(small(text, "the dog")["input_ids"])
    originals = pruned.to_original(ids)
    assert small.convert_ids_to_tokens(ids.tolist()) == tokenizer.convert_ids_to_tokens(originals.tolist())
    own, theirs = (one.tokenize(text) for one in (small, tokenizer))
    assert own.count("[UNK]") <= theirs.count("[UNK]")
    assert "[UNK]" in theirs or "".join(own).replace("##", "") == "".join(theirs).replace("##", "")


def test_the_tokenizer_saves_and_loads(small: Any, tmp_path: Path) -> None:
    small.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == small.get_vocab()
    assert again.all_special_ids == small.all_special_ids
    for text in (*TEXTS, "unheard-of wörds 你好 [MASK] [SEP]", ""):
        assert again(text, "b")["input_ids"] == small(text, "b")["input_ids"]
        assert again(text, "b")["token_type_ids"] == small(text, "b")["token_type_ids"]


def test_a_pruned_student_computes_what_it_did(tokenizer: Any, pruned: PrunedVocabulary) -> None:
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    student = transformers.BertForSequenceClassification(config).eval()
    ids = torch.arange(len(pruned))[None, :40]
    with torch.no_grad():
        before = student(pruned.to_original(ids)).logits
        prune_student(student, pruned)
        assert torch.equal(student(ids).logits, before)
    assert student.config.vocab_size == len(pruned)


def test_the_option() -> None:
    assert parse_prune_option("none") is None
    assert parse_prune_option("auto") == 0
    assert parse_prune_option("9000") == 9000
    for wrong in ("0", "-1", "some", "1.5"):
        with pytest.raises(UsageError, match="auto, none, or the number"):
            parse_prune_option(wrong)


def test_a_pruned_vocabulary_is_recognised(tokenizer: Any, pruned: PrunedVocabulary, small: Any) -> None:
    found = shared_vocabulary(small, tokenizer, "student", "teacher")
    assert found is not None
    assert torch.equal(found.kept, pruned.kept)
    assert shared_vocabulary(tokenizer, tokenizer, "student", "teacher") is None
    with pytest.raises(ModelError, match="different vocabularies"):
        shared_vocabulary(tokenizer, small, "student", "teacher")
