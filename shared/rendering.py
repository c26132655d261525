"""Samples in columns -> their texts and replaced spans as Arrow arrays, without a Python object per sample.

Each text is cut into pieces (what stands before a site, the site's own words, ..., what stands after the last site);
a sample's text is a gather of piece numbers joined by Arrow, in which replaced sites point at the new word instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.sampling import ORIGINS, RowCandidates, Samples, TextCandidates
from shared.schema import REPLACED

COLUMNS = ("text_a", "text_b")
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RenderedSamples:
    """text_a, text_b: string arrays (samples,), text_b null where a row has none; replaced: spans in those texts."""

    text_a: pa.Array
    text_b: pa.Array
    replaced: pa.Array


def render_samples(rows: Sequence[RowCandidates], samples: Samples) -> RenderedSamples:
    """Texts and replaced spans (code points of the sample's own text) of `samples`."""
    has_b = np.asarray([row.text_b is not None for row in rows], np.bool_)
    num_a = np.asarray([len(row.text_a.sites) for row in rows], np.int64)
    owner = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
    is_b = samples.site >= num_a[samples.row[owner]]
    local_site = samples.site - np.where(is_b, num_a[samples.row[owner]], 0)
    start, end = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
    texts = []
    for number in (0, 1):
        mine = np.flatnonzero(is_b == bool(number))
        text = [row.text_b if number else row.text_a for row in rows]
        rendered, starts, ends = _render_column(text, samples, owner[mine], local_site[mine], samples.word[mine])
        start[mine], end[mine] = starts, ends
        texts.append(rendered)
    if not has_b.all():
        texts[1] = pc.if_else(pa.array(has_b[samples.row]), texts[1], pa.scalar(None, pa.string()))
    site_words = [site.word for row in rows for site in row.sites]
    first_site = np.concatenate([[0], np.cumsum([len(row.sites) for row in rows])]).astype(np.int64)
    word_index = first_site[samples.row[owner]] + samples.site
    arrays = [
        _dictionary(is_b.astype(np.int8), COLUMNS),
        pa.array(start.astype(np.int32)),
        pa.array(end.astype(np.int32)),
        _take(site_words, word_index),
        _take(samples.words, samples.word),
        _dictionary(samples.origin.astype(np.int8), ORIGINS),
    ]
    struct = pa.StructArray.from_arrays(arrays, fields=list(REPLACED.value_type))
    replaced = pa.ListArray.from_arrays(pa.array(samples.offsets.astype(np.int32)), struct, type=REPLACED)
    return RenderedSamples(texts[0], texts[1], replaced)


def _render_column(
    texts: Sequence[TextCandidates | None], samples: Samples, owner: Ints, site: Ints, word: Ints
) -> tuple[pa.Array, Ints, Ints]:
    """One text column of all samples, and the span of each replaced word (owner sample, site, new word)."""
    pieces: list[str] = []
    lengths: list[int] = []
    first_piece = [0]
    for text in texts:
        last = 0
        if text is not None:
            for one in text.sites:
                pieces += (text.text[last : one.start], text.text[one.start : one.end])
                lengths += (one.start - last, one.end - one.start)
                last = one.end
            pieces.append(text.text[last:])
            lengths.append(len(pieces[-1]))
        first_piece.append(len(pieces))
    first = np.asarray(first_piece, np.int64)
    num_pieces = np.diff(first)[samples.row]
    offsets = np.concatenate([[0], np.cumsum(num_pieces)]).astype(np.int64)
    gather = np.arange(offsets[-1]) - np.repeat(offsets[:-1] - first[:-1][samples.row], num_pieces)
    place = offsets[owner] + 2 * site + 1
    gather[place] = len(pieces) + word
    piece_length = np.concatenate([np.asarray(lengths, np.int64), [len(one) for one in samples.words]]).astype(np.int64)
    ends = np.cumsum(piece_length[gather]) if len(gather) else np.zeros(0, np.int64)
    before = np.concatenate([[0], ends])
    base = before[offsets[owner]]
    table = pa.array([*pieces, *samples.words], pa.string())
    lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), table.take(pa.array(gather)))
    return pc.binary_join(lists, ""), before[place] - base, before[place + 1] - base


def _take(words: Sequence[str], index: Ints) -> pa.Array:
    return pa.array(words, pa.string()).take(pa.array(index))


def _dictionary(index: NDArray[np.int8], values: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(values, pa.string()))
