"""Whole shards as columns give what single texts give as objects: words, candidate sets, draws and tables."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from augment_service.engine.conditioning import samples_steps
from augment_service.engine.lexicon import Lexicon
from augment_service.engine.proposer import Proposer
from augment_service.engine.protection import Replaceable
from augment_service.engine.word_table import WordTable
from augment_service.job.assemble import candidates_table, sample_statistics, samples_table
from shared.candidate_columns import CandidateColumns
from shared.candidates import RowCandidates
from shared.inputs.rows import SourceRow
from shared.label_quotas import LabelQuotas
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.schema import candidates_schema, samples_schema
from tests.support.engine_answers import run_steps
from tests.support.models import KINDS, save_random_model

WORDS = st.sampled_from(
    [
        "the",
        "The",
        "film",
        "Film",
        "FILM",
        "a",
        "an",
        "good",
        "acting,",
        "plots.",
        "(end)",
        "don't",
        "café",
        "CAFÉ",
        "naïve",
        "iPhone",
        "USA",
        "[MASK]",
        "[SEP]",
        "<mask>",
        "www.film.com",
        "x@y.org",
        "<br/>",
        "&amp;",
        "@me",
        "#tag",
        "3.5",
        "1990s",
        "电影很好",
        "हिन्दी",
        "ที่นี่",
        "́x",
        "\u202bword\u202c",
        "Straße",
        "ŒUVRE",
        "ǅ",
        "new",
        "york",
        "New",
        "York",
        "C++",
        "word\xa0word",
        "tab\tbed",
        "two\nlines",
        "\x00a\x01b",
        "\u200dq",
    ]
)
TEXTS = st.one_of(
    st.lists(st.one_of(WORDS, st.just(""), st.text(max_size=4)), max_size=12).map(" ".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
)
ROWS = st.lists(st.tuples(TEXTS, st.none() | TEXTS), min_size=1, max_size=4)
SWITCHES = st.fixed_dictionaries(
    {
        "k": st.integers(1, 6),
        "n_a": st.integers(0, 6),
        "p_t": st.sampled_from([0.2, 0.6, 1.0]),
        "seed": st.integers(0, 9),
        "context": st.sampled_from(["single", "pair", "unmasked"]),
        "words": st.sampled_from(["reference", "all-letters", "all"]),
        "filter": st.sampled_from(["reference", "whole-words"]),
        "pairs": st.sampled_from(["both", "each"]),
        "stop_words": st.sampled_from(["reference", "none", ("film", "new york", "The")]),
        "protect_words": st.sampled_from([(), ("new york", "c++", "CAFÉ", "the good")]),
    }
)
FORMS = st.sampled_from(
    [
        {"text": "reference"},
        {"text": "reference", "protect": "urls,emails,html,mentions,numbers"},
        {"text": "preserve"},
        {"text": "preserve", "case": "keep", "protect": "none"},
        {"text": "preserve", "protect": "mentions,numbers"},
        {"text": "preserve", "protect": r"urls,\bg\w+"},
    ]
)


@pytest.fixture(scope="module")
def lexicons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Lexicon]:
    found = {}
    for kind in KINDS:
        tokenizer = AutoTokenizer.from_pretrained(save_random_model(kind, tmp_path_factory.mktemp(kind)))
        ids = (tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id)
        # So short that many texts need windows.
        found[kind] = Lexicon(tokenizer, *ids, max_length=12)
    return found


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(shards=st.lists(st.lists(TEXTS, max_size=4), min_size=1, max_size=3))
def test_words_of_the_table_are_those_of_the_splitter(
    lexicons: dict[str, Lexicon], kind: str, shards: list[list[str]]
) -> None:
    splitter = lexicons[kind].splitter
    table = WordTable(splitter, Replaceable(AugmentParams(), splitter))
    for texts in shards:
        found = table.split(texts)
        assert [tuple(table.words_of(found, text)) for text in range(len(texts))] == splitter.split(texts)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(shards=st.lists(ROWS, min_size=1, max_size=2), switches=SWITCHES, form=FORMS)
def test_columns_equal_the_objects(
    lexicons: dict[str, Lexicon],
    kind: str,
    shards: list[list[tuple[str, str | None]]],
    switches: dict[str, Any],
    form: dict[str, Any],
) -> None:
    lexicon, params = lexicons[kind], AugmentParams.model_validate(switches | form)
    shard_wise, text_wise = Proposer(lexicon, params), Proposer(lexicon, params)
    size = len(lexicon.vocabulary.surfaces)
    for shard in shards:
        rows = [SourceRow(7 * number, *texts, number) for number, texts in enumerate(shard)]
        columns = run_steps(shard_wise.candidates_steps(rows), size)
        assert isinstance(columns, CandidateColumns)
        found = []
        for row in rows:
            texts = [text for text in (row.text_a, row.text_b) if text is not None]
            proposals = run_steps(text_wise.propose_steps(texts, protects=True), size)
            found.append(RowCandidates(row.source_id, *map(text_wise.text_candidates, proposals)))
        assert list(columns) == found
        check_tables(rows, columns, found, params)
    assert shard_wise.statistics.words == text_wise.statistics.words


def check_tables(
    rows: list[SourceRow], columns: CandidateColumns, found: list[RowCandidates], params: AugmentParams
) -> None:
    """Tables and counts of a shard are the same from columns and from objects."""
    by_columns, by_objects = draw_samples(columns, params), draw_samples(found, params)
    schema = samples_schema(pa.int64(), [])
    expected = samples_table(schema, rows, found, by_objects)
    assert samples_table(schema, rows, columns, by_columns).equals(expected)
    assert sample_statistics(columns, by_columns) == sample_statistics(found, by_objects)
    schema = candidates_schema(pa.int64(), [])
    assert candidates_table(schema, rows, columns).equals(candidates_table(schema, rows, found))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(shard=st.lists(st.tuples(TEXTS, st.none() | TEXTS, st.booleans()), min_size=1, max_size=5))
def test_the_models_are_asked_about_rows_with_samples_only(
    lexicons: dict[str, Lexicon], kind: str, shard: list[tuple[str, str | None, bool]]
) -> None:
    proposer = Proposer(lexicons[kind], AugmentParams(n_a=0), LabelQuotas({"augmented": 2}))
    rows = [
        SourceRow(number, first, second, "augmented" if is_wanted else None)
        for number, (first, second, is_wanted) in enumerate(shard)
    ]
    wanted = [row for row in rows if row.label]
    size = len(proposer.vocabulary.surfaces)
    found, samples = run_steps(samples_steps(proposer, rows), size)
    alone, samples_alone = run_steps(samples_steps(proposer, wanted), size)
    assert [one for one, row in zip(found, rows, strict=True) if row.label] == list(alone)
    for one, every, row in zip(found, run_steps(proposer.candidates_steps(rows), size), rows, strict=True):
        assert one.text_a.text == every.text_a.text
        assert one.sites == (every.sites if row.label else ())
    schema = samples_schema(pa.string(), [])
    whole = samples_table(schema, rows, found, samples)
    assert whole.filter(pc.equal(whole["label"], "augmented")).equals(
        samples_table(schema, wanted, alone, samples_alone)
    )


def test_a_full_table_is_replaced_and_nothing_changes(
    lexicons: dict[str, Lexicon], monkeypatch: pytest.MonkeyPatch
) -> None:
    lexicon = lexicons["bert-uncased"]
    size = len(lexicon.vocabulary.surfaces)
    rows = [SourceRow(0, "the good film of the year", "a Plot, and the acting")]
    proposer = Proposer(lexicon, AugmentParams())
    first = run_steps(proposer.candidates_steps(rows), size)
    monkeypatch.setattr("augment_service.engine.word_table._MAX_CHARACTERS", 1)
    second = run_steps(proposer.candidates_steps(rows), size)
    assert isinstance(first, CandidateColumns)
    assert isinstance(second, CandidateColumns)
    assert second.strings is not first.strings
    assert list(first) == list(second)
