"""Rows and their samples or candidate sets -> the Arrow table of a shard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from augment_service.engine.augment import AugmentEngine
from shared.candidate_columns import CandidateColumns
from shared.candidates import Ints, RowCandidates, Samples, TextCandidates
from shared.inputs.arrow_cells import bytes_of_cell, has_32_bit_offsets, most_counted, take, to_array
from shared.inputs.rows import SourceRow
from shared.rendering import MAX_TEXT_BYTES, ShardOrder, check_text_bytes, render_samples, too_large
from shared.schema import CANDIDATE_SETS, REPLACED


def samples_table(
    schema: pa.Schema, rows: Sequence[SourceRow], found: Sequence[RowCandidates], samples: Samples
) -> pa.Table:
    """Each row's source (n = 0), then its samples, in order. schema: from `shared.schema.samples_schema`."""
    rendered = render_samples(found, samples)
    order = ShardOrder.of(len(rows), samples)
    source_ids = np.asarray([row.source_id for row in rows], np.int64)
    columns = [
        pa.array(source_ids[order.row]),
        pa.array(order.n.astype(np.int32)),
        order.interleave(pa.array([row.text_a for row in rows], pa.string()), rendered.text_a),
        order.interleave(pa.array([row.text_b for row in rows], pa.string()), rendered.text_b),
        order.interleave(pa.array([[]] * len(rows), REPLACED), rendered.replaced),
    ]
    return _table(schema, rows, columns, order.row)


def candidates_table(schema: pa.Schema, rows: Sequence[SourceRow], found: Sequence[RowCandidates]) -> pa.Table:
    """One row per source row, with its candidate sets. schema: from `shared.schema.candidates_schema`."""
    columns = [
        pa.array([row.source_id for row in rows], pa.int64()),
        pa.array([row.text_a for row in rows], pa.string()),
        pa.array([row.text_b for row in rows], pa.string()),
        pa.array([one.text_a.text for one in found], pa.string()),
        pa.array([_sets(one.text_a) for one in found], CANDIDATE_SETS),
        pa.array([one.text_b.text if one.text_b else None for one in found], pa.string()),
        pa.array([_sets(one.text_b) if one.text_b else None for one in found], CANDIDATE_SETS),
    ]
    return _table(schema, rows, columns, np.arange(len(rows)))


def sample_statistics(found: Sequence[RowCandidates], samples: Samples) -> dict[str, float]:
    """Counts of a shard, recorded in its commit."""
    sites = num_sites(found)
    return {
        "samples": len(samples),
        "replaceable_words": int(sites[samples.row].sum()) if len(samples) else 0,
        "replaced_by_mlm": int((samples.origin == 0).sum()),
        "replaced_by_glove": int((samples.origin == 1).sum()),
    }


def shard_table(
    engine: AugmentEngine, emit: str, rows: Sequence[SourceRow], schema: pa.Schema
) -> tuple[pa.Table, dict[str, float]]:
    """The table of a shard, or of a part of one, and its counts. `emit`: samples or candidates."""
    inputs, tokens = engine.statistics.model_inputs, engine.statistics.model_tokens
    if emit == "candidates":
        found = engine.candidates(rows)
        table, statistics = candidates_table(schema, rows, found), {"sites": float(num_sites(found).sum())}
    else:
        found, samples = engine.samples(rows)
        table, statistics = samples_table(schema, rows, found, samples), sample_statistics(found, samples)
    done = engine.statistics
    return table, statistics | {
        "model_inputs": done.model_inputs - inputs,
        "model_tokens": done.model_tokens - tokens,
    }


def num_sites(found: Sequence[RowCandidates]) -> Ints:
    """(rows,) int64 replaceable words of each row."""
    if isinstance(found, CandidateColumns):
        return np.diff(found.row_first_site)
    return np.asarray([len(row.sites) for row in found], np.int64)


def _table(schema: pa.Schema, rows: Sequence[SourceRow], columns: Sequence[pa.Array], source: Ints) -> pa.Table:
    """`columns`, plus the label and the input's other columns, taken from each output row's `source` row.

    Raises ShardSizeError for more than 2 GiB in one column.
    """
    index, label_at = pa.array(source), schema.names.index("label")
    copies = np.bincount(source, minlength=len(rows))

    def carried(values: list[Any], place: int) -> pa.Array:
        field = schema.field(place)
        if has_32_bit_offsets(field.type):
            # Checked before Arrow fails halfway with an error that names neither the column nor a remedy.
            sizes = np.asarray([*map(bytes_of_cell, values)], np.int64)
            check_text_bytes(int((sizes * copies).sum()), len(rows), field.name)
        try:
            own = to_array(values, field.type)
            # Arrow fails, or overflows, only after it has built all the values, and 4 bytes of indices for each.
            if most_counted(own, copies) > MAX_TEXT_BYTES:
                raise too_large(f"column {field.name}", len(rows))
            cells = take(own, index)
            # Arrow detects too many bytes in a string column, but not too many values in a list.
            cells.validate()
        except pa.ArrowInvalid as error:
            raise too_large(f"column {field.name}", len(rows)) from error
        return cells

    if any(isinstance(column, pa.ChunkedArray) for column in columns):
        # pa.array returns a ChunkedArray when one array cannot hold the values.
        raise too_large("the candidates", len(rows))
    first_rest = len(columns) + 1
    label = carried([row.label for row in rows], label_at)
    rest = [carried([row.rest[place - first_rest] for row in rows], place) for place in range(first_rest, len(schema))]
    return pa.Table.from_arrays([*columns[:label_at], label, *columns[label_at:], *rest], schema=schema)


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
