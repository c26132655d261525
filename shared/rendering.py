"""Samples -> texts, and the spans of the new words in them.

`spell` states the rule for one sample; everything that handles single samples calls it. `render_samples` applies the
same rule to all samples of a shard as Arrow arrays, without a Python object per sample; a property test compares the
two. For that, each text is cut into segments (the part before a site, the site's own words, ..., the part after the
last site). A sample's text is a gather of segments joined by Arrow, in which replaced sites point at the new word.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shared.candidate_columns import CandidateColumns
from shared.candidates import ORIGINS, Ints, Origin, RowCandidates, Samples, TextCandidates, offsets_of
from shared.errors import ShardSizeError
from shared.schema import REPLACED
from shared.strings import used_only

Column = Literal["text_a", "text_b"]
COLUMNS: tuple[Column, ...] = ("text_a", "text_b")

MAX_SEGMENTS = 2_000_000
"""Segments joined at a time; each takes about 40 bytes."""
MAX_TEXT_BYTES = 2**31 - 1
"""Bytes that a text column of one shard can hold: Arrow's strings have 32-bit offsets."""


class Spelled(NamedTuple):
    """The texts of one sample, and the code points [start, end) of each replaced word in its text."""

    texts: tuple[str, str | None]
    spans: list[tuple[int, int]]


class ReplacedWord(TypedDict):
    """A replaced word in JSON form: code points [start, end) of the sample's own text."""

    column: Column
    start: int
    end: int
    word: str
    candidate: str
    origin: Origin


class RenderedSample(TypedDict):
    """One sample in JSON form."""

    n: int
    text_a: str
    text_b: str | None
    replaced: list[ReplacedWord]


def spell(row: RowCandidates, chosen: Sequence[tuple[int, str]]) -> Spelled:
    """The row's texts with new words at some of its sites. chosen: (site, new word), sites ascending."""
    num_a = len(row.text_a.sites)
    spans: list[tuple[int, int]] = []
    text_a = _replace(row.text_a, (one for one in chosen if one[0] < num_a), spans)
    if row.text_b is None:
        return Spelled((text_a, None), spans)
    text_b = _replace(row.text_b, ((site - num_a, word) for site, word in chosen if site >= num_a), spans)
    return Spelled((text_a, text_b), spans)


def _replace(text: TextCandidates, chosen: Iterable[tuple[int, str]], spans: list[tuple[int, int]]) -> str:
    """The text with new words at the `chosen` sites; adds the words' spans to `spans`."""
    parts: list[str] = []
    last = length = 0
    for index, word in chosen:
        site = text.sites[index]
        parts += (text.text[last : site.start], word)
        start = length + site.start - last
        last, length = site.end, start + len(word)
        spans.append((start, length))
    return "".join([*parts, text.text[last:]])


def render_rows(rows: Sequence[RowCandidates], samples: Samples) -> list[list[RenderedSample]]:
    """The samples of each row in JSON form. For whole shards, `render_samples` is many times faster."""
    rendered: list[list[RenderedSample]] = [[] for _ in rows]
    for index, one in rendered_samples(rows, samples):
        rendered[index].append(one)
    return rendered


def rendered_samples(rows: Sequence[RowCandidates], samples: Samples) -> Iterator[tuple[int, RenderedSample]]:
    """(index of the row, sample in JSON form) of each sample, one after another."""
    sites_of = [row.sites for row in rows]
    origins = iter(samples.origin.tolist())
    for index, n, chosen in zip(samples.row.tolist(), samples.n.tolist(), samples.replaced_words(), strict=True):
        row, sites = rows[index], sites_of[index]
        num_a = len(row.text_a.sites)
        (text_a, text_b), spans = spell(row, chosen)
        replaced: list[ReplacedWord] = [
            {
                "column": COLUMNS[site >= num_a],
                "start": start,
                "end": end,
                "word": sites[site].word,
                "candidate": word,
                "origin": ORIGINS[next(origins)],
            }
            for (site, word), (start, end) in zip(chosen, spans, strict=True)
        ]
        yield index, {"n": n, "text_a": text_a, "text_b": text_b, "replaced": replaced}


@dataclass(frozen=True, slots=True)
class RenderedSamples:
    """text_a, text_b: string arrays (samples,), text_b null where a row has none; replaced: spans in those texts."""

    text_a: pa.Array
    text_b: pa.Array
    replaced: pa.Array


def render_samples(rows: Sequence[RowCandidates], samples: Samples) -> RenderedSamples:
    """Texts and replaced spans (code points of the sample's own text) of `samples`. Raises ShardSizeError."""
    layout = _Layout.of(rows)
    has_b, num_a = layout.has_b, layout.num_sites_a
    owner = np.repeat(np.arange(len(samples)), np.diff(samples.offsets))
    is_b = samples.site >= num_a[samples.row[owner]]
    local_site = samples.site - np.where(is_b, num_a[samples.row[owner]], 0)
    start, end = np.zeros(len(owner), np.int64), np.zeros(len(owner), np.int64)
    texts = []
    for number in (0, 1):
        mine = np.flatnonzero(is_b == bool(number))
        replaced_words = owner[mine], local_site[mine], samples.word[mine]
        rendered, starts, ends = _render_column(layout.columns[number], samples, *replaced_words)
        start[mine], end[mine] = starts, ends
        texts.append(rendered)
    if not has_b.all():
        texts[1] = pc.if_else(pa.array(has_b[samples.row]), texts[1], pa.scalar(None, pa.string()))
    word_index = layout.word[layout.first_site[samples.row[owner]] + samples.site]
    arrays = [
        _dictionary(is_b.astype(np.int8), COLUMNS),
        pa.array(start.astype(np.int32)),
        pa.array(end.astype(np.int32)),
        _take(*used_only(layout.words, word_index), len(rows)),
        _take(samples.words, samples.word, len(rows)),
        _dictionary(samples.origin.astype(np.int8), ORIGINS),
    ]
    struct = pa.StructArray.from_arrays(arrays, fields=list(REPLACED.value_type))
    replaced = pa.ListArray.from_arrays(pa.array(samples.offsets.astype(np.int32)), struct, type=REPLACED)
    return RenderedSamples(texts[0], texts[1], replaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Segments:
    """One text column of rows, split at its sites. Row r has the segments `first[r]` to `first[r + 1]`."""

    segments: list[str]
    first: Ints

    @classmethod
    def of(cls, texts: Iterable[tuple[str, Sequence[int], Sequence[int]] | None]) -> _Segments:
        """texts: per row its text, and the starts and ends of its sites; or None."""
        segments: list[str] = []
        first = [0]
        for one in texts:
            if one is not None:
                text, starts, ends = one
                last = 0
                for start, end in zip(starts, ends, strict=True):
                    segments += (text[last:start], text[start:end])
                    last = end
                segments.append(text[last:])
            first.append(len(segments))
        return cls(segments=segments, first=np.asarray(first, np.int64))


def _cut(texts: Sequence[TextCandidates | None]) -> _Segments:
    spans = ((one.text, [s.start for s in one.sites], [s.end for s in one.sites]) if one else None for one in texts)
    return _Segments.of(spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Rows prepared for rendering. `first_site` (rows + 1,); `word` (sites,): index of each site's word in `words`."""

    has_b: NDArray[np.bool_]
    num_sites_a: Ints
    first_site: Ints
    words: Sequence[str]
    word: Ints
    columns: tuple[_Segments, _Segments]

    @classmethod
    def of(cls, rows: Sequence[RowCandidates]) -> _Layout:
        if isinstance(rows, CandidateColumns):
            return cls._of_columns(rows)
        words = [site.word for row in rows for site in row.sites]
        return cls(
            has_b=np.asarray([row.text_b is not None for row in rows], np.bool_),
            num_sites_a=np.asarray([len(row.text_a.sites) for row in rows], np.int64),
            first_site=offsets_of(np.asarray([len(row.sites) for row in rows], np.int64)),
            words=words,
            word=np.arange(len(words)),
            columns=(_cut([row.text_a for row in rows]), _cut([row.text_b for row in rows])),
        )

    @classmethod
    def _of_columns(cls, rows: CandidateColumns) -> _Layout:
        bounds, start, end = rows.first_site.tolist(), rows.start.tolist(), rows.end.tolist()

        def site_spans(text: int) -> tuple[str, list[int], list[int]]:
            own = slice(bounds[text], bounds[text + 1])
            return rows.texts[text], start[own], end[own]

        first, has_b = rows.first_text[:-1].tolist(), rows.has_b.tolist()
        return cls(
            has_b=rows.has_b,
            num_sites_a=rows.num_sites_a,
            first_site=rows.row_first_site,
            words=rows.strings.values,
            word=rows.word,
            columns=(
                _Segments.of(map(site_spans, first)),
                _Segments.of(site_spans(text + 1) if has else None for text, has in zip(first, has_b, strict=True)),
            ),
        )


def _render_column(
    column: _Segments, samples: Samples, owner: Ints, site: Ints, word: Ints
) -> tuple[pa.Array, Ints, Ints]:
    """One text column of all samples, and the span of each replaced word (its sample `owner`, site, new word)."""
    segments, first = column.segments, column.first
    all_segments = [*segments, *samples.words]
    check_text_bytes(_rendered_bytes(all_segments, first, samples, (owner, site, word)), len(first) - 1)
    table = pa.array(all_segments, pa.string())
    length = np.asarray(list(map(len, all_segments)), np.int64)
    num_segments = np.diff(first)[samples.row]
    parts, starts, ends = [], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for low, high in _sample_blocks(num_segments):
        offsets = offsets_of(num_segments[low:high])
        rising = np.repeat(offsets[:-1] - first[:-1][samples.row[low:high]], num_segments[low:high])
        gather = np.arange(offsets[-1]) - rising
        mine = slice(*np.searchsorted(owner, (low, high)))
        place = offsets[owner[mine] - low] + 2 * site[mine] + 1
        gather[place] = len(segments) + word[mine]
        before = offsets_of(length[gather])
        base = before[offsets[owner[mine] - low]]
        starts.append(before[place] - base)
        ends.append(before[place + 1] - base)
        lists = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), table.take(pa.array(gather)))
        parts.append(pc.binary_join(lists, ""))
    rendered = parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
    return rendered, np.concatenate(starts), np.concatenate(ends)


def _sample_blocks(num_segments: Ints) -> list[tuple[int, int]]:
    """Consecutive ranges of samples with about MAX_SEGMENTS segments each; at least one range."""
    if not len(num_segments):
        return [(0, 0)]
    number = (np.cumsum(num_segments) - 1) // MAX_SEGMENTS
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(num_segments)]
    return list(pairwise(cuts))


def _rendered_bytes(segments: Sequence[str], first: Ints, samples: Samples, replaced: tuple[Ints, Ints, Ints]) -> int:
    """UTF-8 bytes of one text column of all samples. replaced: sample, site and new word of each replaced word."""
    owner, site, word = replaced
    size = np.asarray([len(one) if one.isascii() else len(one.encode()) for one in segments], np.int64)
    of_row = np.diff(offsets_of(size)[first])
    old = size[first[:-1][samples.row[owner]] + 2 * site + 1]
    return int(of_row[samples.row].sum() - old.sum() + size[first[-1] + word].sum())


def check_text_bytes(num_bytes: int, num_rows: int, column: str = "") -> None:
    """Raises ShardSizeError for more text than one column of a shard can hold. column: a name for the message."""
    if num_bytes > MAX_TEXT_BYTES:
        raise too_large(f"column {column}" if column else "the texts", num_rows, f" ({num_bytes / 2**30:.1f} GiB)")


def too_large(what: str, num_rows: int, size: str = "") -> ShardSizeError:
    """The error for data of `num_rows` source rows that one column of a shard cannot hold."""
    return ShardSizeError(
        f"{what}: the samples of {num_rows} source rows exceed the 2 GiB that one shard can hold{size}; use a smaller "
        "--shard-rows or a smaller --n-a"
    )


@dataclass(frozen=True, slots=True)
class ShardOrder:
    """Rows of a shard of samples: each source (n = 0), followed by its samples.

    row, n: (sources + samples,) int64. `index` points into the sources followed by the samples.
    """

    row: Ints
    n: Ints
    index: Ints

    @classmethod
    def of(cls, num_sources: int, samples: Samples) -> ShardOrder:
        """The order of `num_sources` source rows and their samples."""
        row = np.concatenate([np.arange(num_sources), samples.row])
        n = np.concatenate([np.zeros(num_sources, np.int64), samples.n])
        index = np.lexsort((n, row))
        return cls(row[index], n[index], index)

    def interleave(self, sources: pa.Array, samples: pa.Array) -> pa.Array:
        """A column of the shard, from its values for the sources and for the samples. Raises ShardSizeError."""
        if sources.type == pa.string():
            num_bytes = sum(pc.sum(pc.binary_length(one)).as_py() or 0 for one in (sources, samples))
            check_text_bytes(num_bytes, len(sources))
        return pa.chunked_array([sources, samples]).combine_chunks().take(pa.array(self.index))


def _take(words: Sequence[str], index: Ints, num_rows: int) -> pa.Array:
    num_bytes = np.asarray([4 * len(one) for one in words], np.int64)[index].sum()
    if num_bytes > MAX_TEXT_BYTES:
        num_bytes = np.asarray([len(one.encode()) for one in words], np.int64)[index].sum()
        check_text_bytes(int(num_bytes), num_rows)
    return pa.array(words, pa.string()).take(pa.array(index))


def _dictionary(index: NDArray[np.int8], values: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(index), pa.array(values, pa.string()))
