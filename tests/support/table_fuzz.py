"""Damaged tables of every format: each row is used or set aside, and there is no traceback, no hang and no crash.

For a long run, use `python -m tests.support.table_fuzz --files 1000000`. It prints each failure with the seed that
reproduces the file.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import multiprocessing
import random
import resource
import signal
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq

from shared.errors import InputError
from shared.inputs.arrow_records import arrow_batches
from shared.inputs.headers import Layout
from shared.inputs.options import InputOptions
from shared.inputs.records import text_records
from shared.inputs.sources import open_source
from shared.inputs.table_files import open_table

SECONDS, MEMORY_BYTES, FILES_A_PROCESS = 20, 64 << 30, 5_000
TOKENS = [
    *(
        b'"',
        b'""',
        b"\\",
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b",",
        b";",
        b"\x00",
        b"\xff",
        b"\xef\xbb\xbf",
        b"[",
        b"]",
        b"{",
    ),
    *(
        b"}",
        b"null",
        b"NaN",
        b"1e999",
        b"-",
        b":",
        b"\xed\xa0\x80",
        b"\xf0\x9f\x98\x80",
        b'\\ud800"',
        b"PAR1",
        b"ARROW1",
    ),
    b"\x7f\xff\xff\xff",
]
TEXTS = [
    *("a fine film", 'he said "good", twice', "two\nlines", "tab\there", "漢字 é", "semi;colon", "back\\slash"),
    "x" * 300,
]


def _rows() -> list[dict[str, object]]:
    return [{"text": text, "label": number % 2, "more": f"m{number}"} for number, text in enumerate(TEXTS * 2)]


def _csv(delimiter: str, quote: str = '"') -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quotechar=quote)
    writer.writerow(("text", "label", "more"))
    writer.writerows(row.values() for row in _rows())
    return file.getvalue().encode()


def _ipc(new: Callable[..., pa.ipc.RecordBatchStreamWriter]) -> bytes:
    table, sink = pa.Table.from_pylist(_rows()), io.BytesIO()
    with new(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    return sink.getvalue()


def _written(write: Callable[[pa.Table, io.BytesIO], object]) -> bytes:
    write(pa.Table.from_pylist(_rows()), sink := io.BytesIO())
    return sink.getvalue()


def _zip(content: bytes) -> bytes:
    with zipfile.ZipFile(sink := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.csv", content)
    return sink.getvalue()


def seeds() -> dict[str, bytes]:
    """An intact file of each format, by its suffix."""
    text = _csv(",")
    return {
        ".csv": text,
        ".semicolon.csv": _csv(";"),
        ".excel.csv": b"sep=;\n" + _csv(";"),
        ".single.csv": _csv(",", "'"),
        ".tsv": _csv("\t"),
        ".unquoted.tsv": b"text\tlabel\n" + b"".join(b"row %d\t%d\n" % (number, number % 2) for number in range(12)),
        ".jsonl": "".join(f"{json.dumps(row)}\n" for row in _rows()).encode(),
        ".json": json.dumps(_rows(), indent=1).encode(),
        ".columns.json": json.dumps({name: [row[name] for row in _rows()] for name in ("text", "label")}).encode(),
        ".parquet": _written(lambda table, file: pq.write_table(table, file, row_group_size=5)),
        ".arrow": _ipc(pa.ipc.new_file),
        ".stream.arrow": _ipc(pa.ipc.new_stream),
        ".feather": _written(lambda table, file: pyarrow.feather.write_feather(table, file)),
        ".csv.gz": gzip.compress(text),
        ".csv.bz2": bz2.compress(text),
        ".csv.xz": lzma.compress(text),
        ".csv.zst": pa.compress(text, "zstd", asbytes=True),
        ".zip": _zip(text),
    }


def mutate(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to six changes: bytes, tokens, cuts, copies, and parts of another file."""
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 1, 2, 8, 64, 512)))
        kind = rng.randrange(8)
        if kind == 0 and at < len(content):
            content = content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[end:]
        elif kind == 2:
            content = content[:at] + rng.choice(TOKENS) + content[at:]
        elif kind == 3:
            content = content[:at] + rng.choice(TOKENS) + content[end:]
        elif kind == 4:
            content = content[:end] + content[at:]
        elif kind == 5:
            content = content[:at]
        elif kind == 6:
            start = rng.randrange(len(other))
            content = content[:at] + other[start : start + end - at] + content[end:]
        else:
            content = content[:at] + rng.randbytes(end - at) + content[end:]
    return content


@dataclass(frozen=True, slots=True)
class Outcome:
    """used, set_aside: rows. refused: the file as a whole. problem: what must never happen."""

    used: int = 0
    set_aside: int = 0
    refused: bool = False
    problem: str = ""


def try_file(path: Path) -> Outcome:
    """Read a file as the job does. Nothing is raised."""
    options = InputOptions(input=(str(path),), text_column=("text",), label_column="label")
    try:
        source = open_source(options)
        items = list(source.rows())
        layout = source.header.layouts[0]
        if problem := _lost(layout, len(items)):
            return Outcome(problem=problem)
    except InputError as error:
        message = str(error)
        is_clear = (str(path) in message or "the input has the columns" in message) and "\n" not in message
        return Outcome(refused=True, problem="" if is_clear else f"unclear message: {message!r}")
    except BaseException as error:
        return Outcome(problem=f"{type(error).__name__}: {error}")
    used = sum(hasattr(item, "text_a") for item in items)
    return Outcome(used, len(items) - used)


def _lost(layout: Layout, num_items: int) -> str:
    """What is missing among the items; the rows are counted in another way than the reader does."""
    if layout.dialect is not None:
        with open_table(layout.path) as file:
            encoding, newline = layout.dialect.encoding, layout.dialect.newline
            with io.TextIOWrapper(file, encoding=encoding, errors="surrogateescape", newline=newline) as text:
                lines = text.read()
        wanted = [line for line in lines.replace("\r", "\n").split("\n") if line][layout.dialect.names_delimiter :]
        records = list(text_records(layout.path, replace(layout.dialect, header=False), None))
        raw = "\n".join(str(record.raw) for record in records)
        found = [line for line in raw.replace("\r", "\n").split("\n") if line]
        if found != wanted:
            return f"{len(wanted)} lines, {len(found)} of them in records"
        return "" if len(records) - layout.dialect.header == num_items else f"{len(records)} records, {num_items} items"
    if layout.schema is not None:
        num_rows = sum(batch.num_rows for batch in arrow_batches(layout.path, layout.kind))
        return "" if num_rows == num_items else f"{num_rows} rows, {num_items} items"
    return ""


def run(seed: int, count: int, folder: Path) -> Iterator[tuple[int, str, Outcome]]:
    """The outcomes of `count` damaged files, from `seed` on: number, suffix, outcome."""
    intact = seeds()
    names = list(intact)
    for number in range(seed, seed + count):
        rng = random.Random(number)
        name = rng.choice(names)
        path = folder / f"x{name}"
        path.write_bytes(mutate(intact[name], intact[rng.choice(names)], rng))
        yield number, name, try_file(path)


def _child(seed: int, count: int, queue: multiprocessing.Queue[tuple[int, str, Outcome] | None]) -> None:
    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {SECONDS} seconds")

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder:
        signal.alarm(SECONDS)
        for one in run(seed, count, Path(folder)):
            signal.alarm(SECONDS)
            queue.put(one)
    signal.alarm(0)
    queue.put(None)


def main() -> None:
    """Run in child processes, so that a crash is a finding too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    totals: Counter[str] = Counter()
    started, number, end = time.monotonic(), options.seed, options.seed + options.files
    while number < end:
        queue = context.Queue()
        child = context.Process(target=_child, args=(number, min(FILES_A_PROCESS, end - number), queue))
        child.start()
        while True:
            try:
                one = queue.get(timeout=5)
            except Exception:  # queue.Empty: the child may be dead
                if child.is_alive():
                    continue
                print(f"seed {number}: the process died with exit code {child.exitcode}", flush=True)
                totals["problems"] += 1
                number += 1
                break
            if one is None:
                break
            number, name, outcome = one[0] + 1, one[1], one[2]
            totals += Counter(files=1, refused=outcome.refused, used=outcome.used, set_aside=outcome.set_aside)
            if outcome.problem:
                totals["problems"] += 1
                print(f"seed {one[0]} ({name}): {outcome.problem[:300]}", flush=True)
        child.join()
        print(f"{number - options.seed:,} files, {time.monotonic() - started:.0f} s, {dict(totals)}", flush=True)


if __name__ == "__main__":
    main()
