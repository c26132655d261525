"""The `export` command: committed shards -> one TSV, JSONL or Parquet file, or the reference's `train_aug.tsv`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from augment_service.config import ExportConfig
from shared.cli.command_line import CommandResult
from shared.errors import InputError, OutputError
from shared.glue import get_task
from shared.inputs.arrow_cells import parquet_error, python_values
from shared.manifest import Manifest, read_manifest
from shared.shards import SUCCESS, list_commits, read_shard
from shared.storage.store import Store, open_store
from shared.storage.whole_file import whole_file


def run_command(config: ExportConfig) -> CommandResult:
    """Write all shards into one file, in order. Raises OutputError if the job is not finished; StoreError."""
    store = open_store(config.out)
    manifest = read_manifest(store)
    if not store.exists(SUCCESS):
        raise OutputError(f"{store.uri} is not complete: finish the run first, so that no samples are missing")
    if manifest.config.emit != "samples" and config.format != "parquet":
        raise OutputError(f"{store.uri} contains candidate sets, not samples; use --format parquet")
    with whole_file(config.output) as path:
        rows = _WRITERS[config.format](store, manifest, path)
    return CommandResult({"file": config.output, "rows": rows}, f"{rows:,} rows written to {config.output}")


def _tables(store: Store) -> Iterator[pa.Table]:
    for commit in list_commits(store):
        yield read_shard(store, commit)


def _write_parquet(store: Store, _manifest: Manifest, path: Path) -> int:
    count = 0
    writer: pq.ParquetWriter | None = None
    for table in _tables(store):
        try:
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
        except pa.ArrowException as error:
            raise parquet_error(error, table.schema) from error
        count += table.num_rows
    if writer is not None:
        writer.close()
    return count


def _write_jsonl(store: Store, _manifest: Manifest, path: Path) -> int:
    return _write_lines(store, path, lambda row: json.dumps(row, ensure_ascii=False, default=str), None)


def _write_tsv(store: Store, _manifest: Manifest, path: Path) -> int:
    first = next(_tables(store))
    names = [name for name in first.schema.names if name != "replaced"]
    return _write_lines(store, path, lambda row: "\t".join(_cell(row[name]) for name in names), "\t".join(names))


def _write_reference_tsv(store: Store, manifest: Manifest, path: Path) -> int:
    """The layout of the task's own train.tsv, which the reference's distillation script reads as train_aug.tsv."""
    if manifest.config.task is None:
        raise OutputError(
            "--format reference-tsv needs a run with --task, because it uses the layout of the task's train.tsv"
        )
    task = get_task(manifest.config.task)
    names = [f"column_{index}" for index in range(task.num_columns)]
    texts, label = task.text_columns, task.label_column
    if task.has_header and (header := _header_of(Path(manifest.inputs[0].path))):
        names = header
        # A run with --text-column may have read a different layout.
        with contextlib.suppress(InputError):
            texts, found = task.find_columns(manifest.inputs[0].path, header)
            label = -1 if found is None else found
    width = len(names)

    def line(row: dict[str, Any]) -> str:
        cells = [""] * width
        for name, value in row.items():
            if name.removesuffix("_input") in names and name not in ("label", "text_a", "text_b"):
                cells[names.index(name.removesuffix("_input"))] = _cell(value)
        for column, value in zip(texts, (row["text_a"], row["text_b"]), strict=False):
            cells[column] = _cell(value)
        if label >= 0:
            cells[label] = _cell(row["label"])
        return "\t".join(cells)

    return _write_lines(store, path, line, "\t".join(names) if task.has_header else None)


def _header_of(path: Path) -> list[str] | None:
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return file.readline().rstrip("\r\n").split("\t")
    except OSError:
        return None


def _write_lines(store: Store, path: Path, line: Callable[[dict[str, Any]], str], header: str | None) -> int:
    count = 0
    file: IO[str]
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if header is not None:
            file.write(header + "\n")
        for table in _tables(store):
            names = table.schema.names
            columns = [python_values(column, name) for name, column in zip(names, table.columns, strict=True)]
            for row in zip(*columns, strict=True):
                file.write(line(dict(zip(names, row, strict=True))) + "\n")
            count += table.num_rows
    return count


def _cell(value: Any) -> str:
    """One cell without quotes: tabs and line breaks become spaces, a list of labels becomes JSON."""
    if isinstance(value, list):
        value = json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value).replace("\t", " ").replace("\n", " ").replace("\r", " ")


_WRITERS: dict[str, Callable[[Store, Manifest, Path], int]] = {
    "tsv": _write_tsv,
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
    "reference-tsv": _write_reference_tsv,
}
