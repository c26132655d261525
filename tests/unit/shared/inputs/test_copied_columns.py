"""Columns that are only copied are, in a shard, exactly what they were in the file: every type and every value."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augment_service.job.assemble import candidates_table, samples_table
from augment_service.job.shard_work import shard_schema, shard_work
from shared.candidates import RowCandidates, Site, TextCandidates
from shared.errors import ShardSizeError
from shared.inputs.arrow_cells import ArrowBlock, most_counted, take
from shared.inputs.options import InputOptions
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source
from shared.params import AugmentParams
from shared.sampling import draw_samples
from shared.schema import samples_schema

INT64 = st.integers(-(2**63), 2**63 - 1)


def integers(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


TEMPORAL: list[tuple[pa.DataType, int]] = [
    (pa.date32(), 32),
    (pa.time32("ms"), 16),
    (pa.time64("ns"), 32),
    *((pa.timestamp(unit, zone), 64) for unit in ("s", "ms", "us", "ns") for zone in (None, "UTC", "Europe/Berlin")),
    *((pa.duration(unit), 64) for unit in ("s", "ms", "us", "ns")),
]
SIMPLE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    *((kind, integers(kind.bit_width)) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float16(), st.floats(width=16)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (
        pa.decimal128(38, 9),
        st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-(10**9), max_value=10**9),
    ),
    *((kind, st.text(max_size=5)) for kind in (pa.string(), pa.large_string(), pa.string_view())),
    *((kind, st.binary(max_size=5)) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.null(), st.none()),
    (pa.month_day_nano_interval(), st.tuples(integers(32), integers(32), INT64).map(pa.MonthDayNano)),
]


@st.composite
def arrays(draw: st.DrawFn, size: int, depth: int = 2) -> pa.Array:
    """An array of any type: also of dates that Python does not have, and of nested types."""
    shape = draw(st.sampled_from(["simple", "temporal", *(["list", "struct", "dictionary", "map"] if depth else [])]))
    if shape == "simple":
        kind, values = draw(st.sampled_from(SIMPLE))
        return pa.array(draw(st.lists(st.none() | values, min_size=size, max_size=size)), kind)
    if shape == "temporal":
        kind, bits = draw(st.sampled_from(TEMPORAL))
        whole = pa.int32() if kind.bit_width == 32 else pa.int64()
        low = 0 if pa.types.is_time(kind) else -(2 ** (bits - 1))
        numbers = st.none() | st.integers(low, 2 ** (bits - 1) - 1)
        return pa.array(draw(st.lists(numbers, min_size=size, max_size=size)), whole).view(kind)
    if shape == "dictionary":
        values = pa.array(draw(st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True)))
        places = draw(st.lists(st.none() | st.integers(0, len(values) - 1), min_size=size, max_size=size))
        return pa.DictionaryArray.from_arrays(pa.array(places, pa.int8()), values)
    if shape == "struct":
        return pa.StructArray.from_arrays([draw(arrays(size, depth - 1)), draw(arrays(size, depth - 1))], ["a", "b"])
    ends = draw(st.lists(st.integers(0, 2), min_size=size, max_size=size))
    offsets = pa.array([sum(ends[:count]) for count in range(size + 1)], pa.int32())
    inner = draw(arrays(sum(ends), depth - 1))
    if shape == "map":
        keys = pa.array([f"k{number}" for number in range(len(inner))], pa.string())
        return pa.MapArray.from_arrays(offsets, keys, inner)
    return pa.ListArray.from_arrays(offsets, inner)


def copied(source: Source) -> pa.Table:
    """The input's columns as its shards have them, after the way to a worker."""
    schema, tables = shard_schema(source, "candidates"), []
    for work in shard_work(source, 3, set(range(100))):
        rows = pickle.loads(pickle.dumps(work.rows, protocol=5))
        found = [RowCandidates(row.source_id, TextCandidates(row.text_a, ()), None) for row in rows]
        tables.append(candidates_table(schema, rows, found))
    return pa.concat_tables(tables)


def write_arrow(table: pa.Table, path: Path) -> None:
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data(), st.integers(1, 7))
def test_every_arrow_type_arrives_as_it_was(tmp_path: Path, data: st.DataObject, size: int) -> None:
    table = pa.table({"text": [f"row {number}" for number in range(size)], "x": data.draw(arrays(size))})
    write_arrow(table, tmp_path / "x.arrow")
    found = copied(open_source(InputOptions(input=(str(tmp_path / "x.arrow"),), text_column=("text",))))
    assert found.schema.field("x").type == table.schema.field("x").type
    for wanted, arrived in zip(cells(table), cells(found), strict=True):
        assert arrived.equals(wanted) or (arrived.to_string() == wanted.to_string() and "nan" in arrived.to_string())


def test_parts_with_other_types_of_a_column_are_read_together(tmp_path: Path) -> None:
    frame = pl.DataFrame({"text": ["a", "b"], "x": ["u", "v"]})
    frame.with_columns(pl.col("x").cast(pl.Categorical)).write_ipc(tmp_path / "a.arrow")
    frame.write_ipc(tmp_path / "b.arrow")
    frame.write_csv(tmp_path / "c.csv")
    frame.write_parquet(tmp_path / "d.parquet")
    frame.select("text").write_parquet(tmp_path / "e.parquet")
    found = copied(open_source(InputOptions(input=(str(tmp_path),), text_column=("text",))))
    assert found["x"].cast(pa.string()).to_pylist() == ["u", "v"] * 4 + [None, None]


def test_a_cell_that_is_no_value_costs_its_row_alone(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 3, [None, *pa.array([b"ok", b"\xff\xfe", b"fine"]).buffers()[1:]])
    write_arrow(pa.table({"text": ["a", "b", "c"], "x": broken}), tmp_path / "x.arrow")
    items = list(open_source(InputOptions(input=(str(tmp_path / "x.arrow"),), text_column=("text",))).rows())
    assert [item.reason.startswith("column x: ") for item in items if isinstance(item, QuarantinedRow)] == [True]
    assert [item.text_a for item in items if isinstance(item, SourceRow)] == ["a", "c"]


def test_memory_is_that_of_a_batch(tmp_path: Path) -> None:
    table = pa.table({"text": [f"row {number}" for number in range(20_000)], "x": ["x" * 2_000] * 20_000})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1_000, use_dictionary=False)
    del table
    before, peak = pa.total_allocated_bytes(), 0
    for _ in open_source(
        InputOptions(input=(str(tmp_path / "x.parquet"),), text_column=("text",), limit=15_000)
    ).rows():
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert peak < 12 << 20  # of 40 MB


def cells(table: pa.Table) -> list[pa.Array]:
    return [table["x"].slice(number, 1).combine_chunks() for number in range(len(table))]


@pytest.mark.parametrize("is_arrow", [True, False])
def test_a_copied_column_with_more_bytes_than_arrow_can_count_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, is_arrow: bool
) -> None:
    note = "n" * 1000
    cell = ArrowBlock(pa.array([note])).cells()[0] if is_arrow else note
    sites = tuple(Site(2 * place, 2 * place + 1, "w", "mlm", ("a", "b", "c"), (0.0,) * 3) for place in range(4))
    found, rows = [RowCandidates(0, TextCandidates("w w w w", sites))], [SourceRow(0, "w w w w", rest=(cell,))]
    samples = draw_samples(found, AugmentParams(n_a=50))
    schema = samples_schema(pa.null(), [pa.field("note", pa.string())])
    # Each copy counts: the cell alone, and the texts of all samples, are far below the limit.
    monkeypatch.setattr("shared.rendering.MAX_TEXT_BYTES", 20_000)
    with pytest.raises(ShardSizeError, match=r"column note: .* 1 source rows exceed .* smaller --shard-rows"):
        samples_table(schema, rows, found, samples)
    monkeypatch.setattr("shared.rendering.MAX_TEXT_BYTES", 100_000)
    assert samples_table(schema, rows, found, samples)["note"].unique().to_pylist() == [note]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.list_(pa.int8()), np.ones(1 << 22, np.int8)),
        (pa.list_(pa.list_(pa.int8())), [np.ones(1 << 21, np.int8)] * 2),
        (pa.list_(pa.string()), ["x" * (1 << 22)]),
        (pa.struct({"a": pa.binary()}), {"a": b"x" * (1 << 22)}),
        (pa.map_(pa.string(), pa.string()), [("k", "x" * (1 << 22))]),
    ],
    ids=["list", "lists", "strings", "struct", "map"],
)
def test_a_nested_column_that_arrow_cannot_count_is_refused_with_advice(
    kind: pa.DataType, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """513 or more copies of 4 MiB: some kinds make Arrow fail without a hint, lists get negative offsets, and both only
    after gigabytes have been built."""
    sites = tuple(Site(2 * place, 2 * place + 1, "w", "mlm", ("a", "b", "c", "d"), (0.0,) * 4) for place in range(6))
    found = [RowCandidates(0, TextCandidates("w w w w w w", sites))]
    rows = [SourceRow(0, "w w w w w w", rest=(ArrowBlock(pa.array([value], kind)).cells()[0],))]
    schema = samples_schema(pa.null(), [pa.field("note", kind)])
    samples = draw_samples(found, AugmentParams(n_a=600))
    assert len(samples) > 520

    def built(array: pa.Array, index: pa.Array) -> pa.Array:
        assert array.type != kind, "gigabytes are built"
        return take(array, index)

    monkeypatch.setattr("augment_service.job.assemble.take", built)
    with pytest.raises(ShardSizeError, match=r"column note: .* 1 source rows exceed .* smaller --shard-rows"):
        samples_table(schema, rows, found, samples)
    monkeypatch.undo()
    few = draw_samples(found, AugmentParams(n_a=2))
    assert len(samples_table(schema, rows, found, few)) == 1 + len(few)


def largest_offset(array: pa.Array) -> int:
    """The largest 32-bit offset in the array, at any depth."""
    kind = array.type
    if pa.types.is_struct(kind):
        return max(map(largest_offset, array.flatten()), default=0)
    if pa.types.is_string(kind):
        return sum(len(one.encode()) for one in array.to_pylist() if one is not None)
    if pa.types.is_map(kind):
        items = pa.array([one for row in array.to_pylist() for one in row or ()], pa.list_(pa.string(), 2))
        return max(len(items), *(largest_offset(items.flatten()[place::2]) for place in (0, 1)))
    if not pa.types.is_list(kind):
        return 0
    return max(len(array.flatten()), largest_offset(array.flatten()))


TEXT = st.none() | st.text(max_size=3)
NESTED = {
    pa.string(): TEXT,
    pa.list_(pa.int8()): st.none() | st.lists(st.integers(-9, 9), max_size=4),
    pa.list_(pa.list_(pa.string())): st.none() | st.lists(st.none() | st.lists(TEXT, max_size=3), max_size=3),
    pa.map_(pa.string(), pa.string()): st.none() | st.lists(st.tuples(st.text(max_size=3), TEXT), max_size=3),
    pa.struct({"a": pa.string(), "b": pa.list_(pa.string())}): st.none()
    | st.fixed_dictionaries({"a": TEXT, "b": st.none() | st.lists(TEXT, max_size=3)}),
}


@given(st.data())
def test_the_largest_offset_of_copies_is_known_before_they_are_built(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*NESTED]))
    array = pa.array(data.draw(st.lists(NESTED[kind], min_size=1, max_size=5)), kind)
    array = array.slice(data.draw(st.integers(0, len(array) - 1)))
    copies = np.asarray(data.draw(st.lists(st.integers(0, 4), min_size=len(array), max_size=len(array))), np.int64)
    taken = take(array, pa.array(np.repeat(np.arange(len(array)), copies)))
    assert most_counted(array, copies) == largest_offset(taken)
