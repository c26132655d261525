"""Rows and their samples -> the Arrow table of a shard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shared.inputs.rows import SourceRow
from shared.rendering import render_samples
from shared.sampling import RowCandidates, Samples, TextCandidates
from shared.schema import CANDIDATE_SETS, REPLACED


def samples_table(
    schema: pa.Schema, rows: Sequence[SourceRow], found: Sequence[RowCandidates], samples: Samples
) -> pa.Table:
    """Each row's source (n = 0), then its samples, in order. `schema`: of shared.schema.samples_schema."""
    rendered = render_samples(found, samples)
    # Sources and samples lie one after the other; `order` interleaves them.
    row = np.concatenate([np.arange(len(rows)), samples.row])
    n = np.concatenate([np.zeros(len(rows), np.int64), samples.n])
    order = np.lexsort((n, row))
    sources_a = pa.array([one.text_a for one in rows], pa.string())
    sources_b = pa.array([one.text_b for one in rows], pa.string())
    nothing = pa.array([[]] * len(rows), REPLACED)
    take = pa.array(order)
    row_take = row[order]
    label, *rest = _travelling(schema, rows, row_take, 6, label_at=4)
    columns = [
        pa.array(np.asarray([one.source_id for one in rows], np.int64)[row_take]),
        pa.array(n[order].astype(np.int32)),
        pa.chunked_array([sources_a, rendered.text_a]).take(take).combine_chunks(),
        pa.chunked_array([sources_b, rendered.text_b]).take(take).combine_chunks(),
        label,
        pa.chunked_array([nothing, rendered.replaced]).combine_chunks().take(take),
        *rest,
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def candidates_table(schema: pa.Schema, rows: Sequence[SourceRow], found: Sequence[RowCandidates]) -> pa.Table:
    """One row per source row, with its candidate sets. `schema`: of shared.schema.candidates_schema."""
    place = np.arange(len(rows))
    label, *rest = _travelling(schema, rows, place, 8, label_at=3)
    columns = [
        pa.array([row.source_id for row in rows], pa.int64()),
        pa.array([row.text_a for row in rows], pa.string()),
        pa.array([row.text_b for row in rows], pa.string()),
        label,
        pa.array([one.text_a.text for one in found], pa.string()),
        pa.array([_sets(one.text_a) for one in found], CANDIDATE_SETS),
        pa.array([one.text_b.text if one.text_b else None for one in found], pa.string()),
        pa.array([_sets(one.text_b) if one.text_b else None for one in found], CANDIDATE_SETS),
        *rest,
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def sample_statistics(found: Sequence[RowCandidates], samples: Samples) -> dict[str, float]:
    """Counts of a shard that stand in its commit."""
    sites = np.asarray([len(row.sites) for row in found], np.int64)
    return {
        "samples": len(samples),
        "replaceable_words": int(sites[samples.row].sum()) if len(samples) else 0,
        "replaced_by_mlm": int((samples.origin == 0).sum()),
        "replaced_by_glove": int((samples.origin == 1).sum()),
    }


def _travelling(
    schema: pa.Schema, rows: Sequence[SourceRow], take: NDArray[np.int64], first_rest: int, label_at: int
) -> list[pa.Array]:
    """Label and travelling columns, one value per output row."""
    index = pa.array(take)
    values = [pa.array([row.label for row in rows], schema.field(label_at).type).take(index)]
    for place in range(first_rest, len(schema)):
        column = [row.rest[place - first_rest] for row in rows]
        values.append(pa.array(column, schema.field(place).type).take(index))
    return values


def _sets(text: TextCandidates) -> list[dict[str, object]]:
    return [
        {
            "start": site.start,
            "end": site.end,
            "word": site.word,
            "origin": site.origin,
            "candidates": list(site.candidates),
            "scores": list(site.scores),
        }
        for site in text.sites
    ]
