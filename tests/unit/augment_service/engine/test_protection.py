"""Which words of a text may be replaced: whole letters, the stop list, and what is protected."""

from __future__ import annotations

import itertools
import time
import unicodedata
from typing import Any

import pytest
import regex  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from augment_service.engine.protection import Replaceable
from augment_service.engine.words import WordSplitter
from shared.params import AugmentParams
from tests.support.models import KINDS, save_random_model


@pytest.fixture(scope="module")
def splitters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, WordSplitter]:
    folders = {kind: save_random_model(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}
    return {kind: WordSplitter(AutoTokenizer.from_pretrained(folder)) for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def splitter(splitters: dict[str, WordSplitter]) -> WordSplitter:
    return splitters["bert-uncased"]


def replaced(splitter: WordSplitter, source: str, **options: Any) -> list[str]:
    """The parts of a text that may be replaced."""
    (words,) = splitter.split([source])
    found = Replaceable(AugmentParams(**options), splitter)(source, words)
    return [source[words[index].start : words[index].end] for index in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cafe\u0301 in town", ["a", "cafe\u0301", "in", "town"]),
        ("cafe\u0301", ["cafe\u0301"]),
        ("ดี ที่นี่", ["ดี", "ที่นี่"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("soft\u00ad hyphen\u200d.", ["soft\u00ad", "hyphen\u200d"]),
        ("漢\U000e0100字", ["漢\U000e0100", "字"]),
        # Marks that open and close a run of the other direction stay in pairs.
        ("\u202bword\u202c next", ["word", "next"]),
    ],
)
def test_a_word_includes_the_marks_after_its_letters(splitter: WordSplitter, text: str, expected: list[str]) -> None:
    assert replaced(splitter, text, words="all-letters") == expected


LETTERS = "abé漢नदีทีкИ👩🚀\u0301\u0489\u093e\u0e35\u200d\u00ad\ufe0f .(-\u202b\u202c"


@settings(max_examples=300, deadline=None)
@given(text=st.text(LETTERS, max_size=12), kind=st.sampled_from(KINDS))
def test_nothing_of_a_replaced_words_letters_is_left_behind(
    splitters: dict[str, WordSplitter], text: str, kind: str
) -> None:
    boundaries = {match.start() for match in regex.finditer(r"\X", text)} | {len(text)}
    (words,) = splitters[kind].split([text])
    for index in Replaceable(AugmentParams(words="all"), splitters[kind])(text, words):
        start, end = words[index].start, words[index].end
        assert end in boundaries
        assert start in boundaries or text[start - 1].isspace()
        following = text[end : end + 1]
        assert not following or unicodedata.category(following) not in ("Mn", "Mc", "Me")
    assert all(one.end <= other.start for one, other in itertools.pairwise(words))


TEXT = (
    "write to john.smith@example.com or see http://example.com/a?b=c&d=1, www.films.org or imdb.com/title <br /> "
    '<a href="next page">this</a> &nbsp; says @friend in 1990s for 3.5 stars'
)


@pytest.mark.parametrize(
    ("protect", "left"),
    [
        (None, "write see this says friend 1990s 3 5 stars"),
        ("none", None),
        ("urls", "write john smith example br href next page this nbsp says friend 1990s 3 5 stars"),
        ("mentions,urls,emails,html", "write see this says 1990s 3 5 stars"),
        ("numbers, urls,emails,html", "write see this says friend stars"),
        (r"urls,emails,html,\b\w{4,5}\b", "see friend 3 5"),
    ],
)
def test_protected_spans_are_left_alone(splitter: WordSplitter, protect: str | None, left: str | None) -> None:
    options = {} if protect is None else {"protect": protect}
    found = replaced(splitter, TEXT, words="all", stop_words=["or", "to", "in", "for", "a", "see www"], **options)
    if left is None:
        assert {"john", "http", "br", "nbsp", "href"} <= set(found)
    elif protect == "urls":
        assert set(left.split()) <= set(found)
        assert not {"http", "www", "imdb", "films"} & set(found)
    else:
        assert [one for one in found if one.isalnum()] == left.split()


def test_ordinary_text_is_not_protected(splitter: WordSplitter) -> None:
    text = "a film.But the plot < the cast and i <3 it at 50 % & more..com & a b@ c e.g. dot-com"
    assert replaced(splitter, text, words="all") == replaced(splitter, text, words="all", protect="none")


def test_normalised_words_protect_only_what_is_asked_for(splitter: WordSplitter) -> None:
    assert "example" in replaced(splitter, TEXT, text="reference")
    assert "example" not in replaced(splitter, TEXT, text="reference", protect="emails,urls")


@pytest.mark.parametrize("kind", ["bert-uncased", "bert-cased", "roberta", "xlm-roberta"])
def test_words_are_protected_in_any_case_and_form(splitters: dict[str, WordSplitter], kind: str) -> None:
    text = "The Café in New York likes C++ and new ideas ; CAFÉ"
    words = ["CAFÉ", "new york", "c++", "  "]
    everything = replaced(splitters[kind], text, words="all")
    found = replaced(splitters[kind], text, words="all", protect_words=words)
    # The tokens of a small sentencepiece vocabulary may cross words, which are then never replaced.
    assert found == [one for one in everything if one not in ("Café", "New", "York", "C", "CAFÉ", "+")]
    assert len(found) > 3


def test_stop_words(splitter: WordSplitter) -> None:
    text = "the good film and The plot"
    assert replaced(splitter, text) == ["good", "film", "plot"]
    assert replaced(splitter, text, stop_words="none") == ["the", "good", "film", "and", "The", "plot"]
    assert replaced(splitter, text, stop_words=["Film"]) == ["the", "good", "and", "The", "plot"]
    assert replaced(splitter, text, words="all-letters") == ["the", "good", "film", "and", "The", "plot"]
    assert replaced(splitter, text, words="all-letters", stop_words="reference") == ["good", "film", "plot"]


@pytest.mark.parametrize("unit", ["a", "a.", "a@", "<a ", "<!--", "&a", "http://", "1,", "@", "a-", "www.", "1.a"])
def test_long_texts_take_linear_time(splitter: WordSplitter, unit: str) -> None:
    text = unit * (100_000 // len(unit))
    check = Replaceable(AugmentParams(protect=("urls", "emails", "html", "mentions", "numbers")), splitter)
    began = time.monotonic()
    for expression in check._expressions:
        list(expression.finditer(text))
    assert time.monotonic() - began < 4
