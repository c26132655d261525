"""Every record of an input's files, in order, with one cell for each column of all files together."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from shared.inputs.arrow_records import arrow_records
from shared.inputs.headers import Header, Layout
from shared.inputs.json_records import json_records
from shared.inputs.records import Record, text_records


def read_records(header: Header, copied: Collection[str]) -> Iterator[Record]:
    """The records of all files; a column that a file lacks is null. Raises InputError for an unreadable file.

    copied: pass-through columns.
    """
    for layout in header.layouts:
        yield from _records(layout, header, copied)


def _records(layout: Layout, header: Header, copied: Collection[str]) -> Iterator[Record]:
    if layout.schema is not None:
        return arrow_records(layout.path, layout.kind, header.names, header.types, copied)
    if layout.dialect is None:
        return json_records(layout.path, header.names, layout.encoding)
    records = text_records(layout.path, layout.dialect, len(layout.names))
    return records if layout.names == header.names else _placed(records, layout, header)


def _placed(records: Iterator[Record], layout: Layout, header: Header) -> Iterator[Record]:
    """The same records, with cells in the order of the header's columns."""
    places = [layout.names.index(name) if name in layout.names else None for name in header.names]
    for record in records:
        cells = record.cells
        if cells is not None:
            record = record._replace(cells=[None if place is None else cells[place] for place in places])
        yield record
