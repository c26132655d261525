"""Arrow schemas of shards. The format is versioned, because other versions read these files."""

from __future__ import annotations

import pyarrow as pa

FORMAT_VERSION = 1

REPLACED = pa.list_(
    pa.struct(
        [
            pa.field("column", pa.dictionary(pa.int8(), pa.string())),
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("word", pa.string()),
            pa.field("candidate", pa.string()),
            pa.field("origin", pa.dictionary(pa.int8(), pa.string())),
        ]
    )
)
CANDIDATE_SETS = pa.list_(
    pa.struct(
        [
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("word", pa.string()),
            pa.field("origin", pa.string()),
            pa.field("candidates", pa.list_(pa.string())),
            pa.field("scores", pa.list_(pa.float32())),
        ]
    )
)


def samples_schema(label: pa.DataType, rest: list[pa.Field]) -> pa.Schema:
    """Columns of a shard of samples. rest: the input's other columns."""
    columns = [
        pa.field("source_id", pa.int64()),
        pa.field("n", pa.int32()),
        pa.field("text_a", pa.string()),
        pa.field("text_b", pa.string()),
        pa.field("label", label),
        pa.field("replaced", REPLACED),
    ]
    return pa.schema(columns + rest)


def candidates_schema(label: pa.DataType, rest: list[pa.Field]) -> pa.Schema:
    """Columns of a shard of candidate sets (`--emit candidates`): one row per source row.

    base_a, base_b: the texts that the sites refer to, either the originals or their normalised words.
    """
    columns = [
        pa.field("source_id", pa.int64()),
        pa.field("text_a", pa.string()),
        pa.field("text_b", pa.string()),
        pa.field("label", label),
        pa.field("base_a", pa.string()),
        pa.field("sites_a", CANDIDATE_SETS),
        pa.field("base_b", pa.string()),
        pa.field("sites_b", CANDIDATE_SETS),
    ]
    return pa.schema(columns + rest)
