"""Samples and candidates from the engine -> response JSON, in parts.

A part is one sample or one word: orjson holds Python's global lock during a call, which would block the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from augment_service.engine.proposer import Proposer, TextProposals
from shared.candidates import RowCandidates, Samples
from shared.rendering import rendered_samples


def candidates_answer(proposer: Proposer, found: Sequence[TextProposals]) -> dict[str, Any]:
    """Words and candidates of a text, or of both texts of a pair, as fields of `TextCandidateSets`."""
    columns = [_column(proposer, one) for one in found]
    return {"text_a": columns[0], "text_b": columns[1] if len(columns) > 1 else None}


def candidates_json(proposer: Proposer, found: Sequence[TextProposals]) -> Iterator[bytes]:
    """`candidates_answer` as JSON."""
    yield b"{"
    for name, text in zip((b'"text_a":', b',"text_b":'), found, strict=False):
        column = _column(proposer, text)
        yield b'%b{"text":%b,"words":[' % (name, orjson.dumps(column["text"]))
        for place, word in enumerate(column["words"]):
            yield b"%b%b" % (b"," if place else b"", orjson.dumps(word))
        yield b"]}"
    yield b"}" if len(found) > 1 else b',"text_b":null}'


def samples_json(row: RowCandidates, samples: Samples) -> Iterator[bytes]:
    """The samples of one row as JSON, with the fields of `TextSamples`."""
    yield b'{"id":%d,"samples":[' % row.source_id
    for place, (_, one) in enumerate(rendered_samples([row], samples)):
        yield b"%b%b" % (b"," if place else b"", orjson.dumps(one))
    yield b"]}"


def _column(proposer: Proposer, found: TextProposals) -> dict[str, Any]:
    text, spans = proposer.base_text(found.text, found.words)
    sites = proposer.text_candidates(found).sites
    site_of = {one.word_index: site for one, site in zip(found.proposals, sites, strict=True)}
    words = []
    for index, (word, (start, end)) in enumerate(zip(found.words, spans, strict=True)):
        one = site_of.get(index)
        words.append(
            {
                "start": start,
                "end": end,
                "word": word.text,
                "origin": one.origin if one else None,
                "candidates": one.candidates if one else (),
                "scores": one.scores if one else (),
            }
        )
    return {"text": text, "words": words}
