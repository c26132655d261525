"""How many bytes a request's answer will take, from its texts and parameters alone: before any model is asked.

Words are counted on the high side, so most answers turn out smaller. Those of unusually long candidates can turn out
larger, which is accounted for when it happens.
"""

from __future__ import annotations

import heapq
import re
from dataclasses import dataclass

import orjson

from augment_service.service.requests import AugmentRequest, CandidatesRequest, as_columns

TEXTS_AT_ONCE = 8
"""Number of texts of one request that are processed concurrently."""
_WORD = re.compile("[^\\W_\u2e80-\U0010ffff]+|[^\\s]")
"""One match per basic word, or more: CJK characters and punctuation are words of their own."""
_ANSWER_BYTES, _TEXT_BYTES, _SAMPLE_BYTES, _REPLACED_BYTES, _WORD_BYTES, _CANDIDATE_BYTES = 16, 64, 64, 105, 90, 31
"""JSON around, and of, each of them: names of fields, numbers, a word of average length."""
_PROPOSED_BYTES, _SITE_BYTES = 60, 600
"""In memory: a proposed candidate with its score, and a word with its model input."""
_DRAWN_BYTES, _RENDERED_BYTES = 24, 600
"""In memory: a drawn word, and a replaced one before it is written as JSON."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """answer_bytes: JSON that is in memory at one time. held_bytes: that, and the work on the texts."""

    answer_bytes: int
    held_bytes: int


def estimate(request: CandidatesRequest, *, is_stream: bool) -> Estimate:
    """An upper estimate for ordinary texts. A stream holds the answers of a few texts, other requests all of them."""
    answers, works = [], []
    for text in request.texts:
        columns = as_columns(text)
        num_bytes = sum(len(orjson.dumps(column)) for column in columns)
        num_words = sum(count_words(column) for column in columns)
        work = num_words * (request.k * _PROPOSED_BYTES + _SITE_BYTES)
        if isinstance(request, AugmentRequest):
            replaced = num_words * request.p_t
            answers.append(_TEXT_BYTES + int(request.n_a * (_SAMPLE_BYTES + num_bytes + replaced * _REPLACED_BYTES)))
            work += int(request.n_a * (num_words * _DRAWN_BYTES + replaced * _RENDERED_BYTES))
        else:
            answers.append(_TEXT_BYTES + num_bytes + num_words * (_WORD_BYTES + request.k * _CANDIDATE_BYTES))
        works.append(work)
    held = heapq.nlargest(TEXTS_AT_ONCE, answers) if is_stream else answers
    answer_bytes = _ANSWER_BYTES + sum(held)
    return Estimate(answer_bytes, answer_bytes + sum(heapq.nlargest(TEXTS_AT_ONCE, works)))


def count_words(text: str) -> int:
    """Number of basic words of a text, or more."""
    return len(_WORD.findall(text))
