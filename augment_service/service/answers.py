"""Candidates from the engine -> response JSON. For samples, see `shared.rendering.render_rows`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from augment_service.engine.proposer import Proposer, TextProposals


def candidates_answer(proposer: Proposer, found: Sequence[TextProposals]) -> dict[str, Any]:
    """Words and candidates of a text, or of both texts of a pair, as fields of `TextCandidateSets`."""
    columns = [_column(proposer, one) for one in found]
    return {"text_a": columns[0], "text_b": columns[1] if len(columns) > 1 else None}


def candidates_json(proposer: Proposer, found: Sequence[TextProposals]) -> bytes:
    """`candidates_answer` as JSON, serialised word by word."""
    written = [
        b'{"text":%b,"words":[%b]}' % (orjson.dumps(one["text"]), b",".join(map(orjson.dumps, one["words"])))
        for one in (_column(proposer, text) for text in found)
    ]
    return b'{"text_a":%b,"text_b":%b}' % (written[0], written[1] if len(written) > 1 else b"null")


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
