"""Estimates the bytes of a request's answer from its texts and parameters alone, before any model runs.

Word counts are overestimates, so most answers turn out smaller. Answers with unusually long candidates can turn out
larger; the excess is accounted for when it occurs.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import orjson
from numpy.typing import NDArray

from augment_service.service.requests import AugmentRequest, CandidatesRequest, as_columns

TEXTS_AT_ONCE = 8
"""Number of texts of one request that are processed concurrently."""
_SPACE, _LETTER, _SINGLE = range(3)
_FIRST_SINGLE = 0x2E80
"""From this code point on (CJK), every character is a separate word, like punctuation."""
_WIDE_SPACE = 0x3000
_WORD = re.compile("[^\\W_\u2e80-\U0010ffff]+|[^\\s]")
_SHORT = 500
"""Up to this many characters, a regular expression is faster than a dozen numpy calls."""
_ANSWER_BYTES, _TEXT_BYTES, _SAMPLE_BYTES, _REPLACED_BYTES, _WORD_BYTES, _CANDIDATE_BYTES = 16, 64, 64, 105, 90, 31
"""JSON bytes of each, including field names, numbers and a word of average length."""
_PROPOSED_BYTES, _SITE_BYTES = 60, 600
"""Bytes in memory of a proposed candidate with its score, and of a word with its model input."""
_DRAWN_BYTES, _RENDERED_BYTES = 24, 600
"""Bytes in memory of a drawn word, and of a replaced one before it is serialised."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """answer_bytes: JSON held in memory at one time. held_bytes: the same plus the working memory of the texts."""

    answer_bytes: int
    held_bytes: int


def estimate(request: CandidatesRequest, *, is_stream: bool) -> Estimate:
    """An upper estimate for ordinary texts. A stream holds the answers of a few texts, other requests those of all."""
    columns = [as_columns(text) for text in request.texts]
    words = iter(count_words([column for text in columns for column in text]).tolist())
    answers, works = [], []
    for text in columns:
        num_bytes = sum(len(orjson.dumps(column)) for column in text)
        num_words = sum(next(words) for _ in text)
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


def count_words(texts: Sequence[str]) -> NDArray[np.int64]:
    """Upper bound of the basic words of each text: runs of letters and digits, and single other characters.

    Under overload the largest requests are refused by this count, so it must be fast: a microsecond per 1,000
    characters of ASCII, or per 200 others. Returns int64 [len(texts)].
    """
    joined = "\n".join(texts) + "\n"
    if len(joined) < _SHORT:
        return np.asarray([len(_WORD.findall(text)) for text in texts], np.int64)
    if joined.isascii():
        kinds = np.frombuffer(joined.encode("ascii").translate(_kinds()[:256].tobytes()), np.uint8)
    else:
        codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _kinds()[np.minimum(codes, _FIRST_SINGLE)]
        kinds[codes == _WIDE_SPACE] = _SPACE
    is_letter = kinds == _LETTER
    begins_word = kinds == _SINGLE
    begins_word[0] |= is_letter[0]
    begins_word[1:] |= is_letter[1:] & ~is_letter[:-1]
    starts = np.concatenate([[0], np.cumsum([len(text) + 1 for text in texts])[:-1]])
    found: NDArray[np.int64] = np.add.reduceat(begins_word, starts, dtype=np.int64)
    return found


@cache
def _kinds() -> NDArray[np.uint8]:
    """For each code point below _FIRST_SINGLE: whether it is a space, a letter or digit, or another character."""
    letter = re.compile(r"[^\W_]")
    kinds = [
        _SPACE if one.isspace() else _LETTER if letter.match(one) else _SINGLE for one in map(chr, range(_FIRST_SINGLE))
    ]
    return np.asarray([*kinds, _SINGLE], np.uint8)
