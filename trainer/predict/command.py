"""`trainer predict`: a model over the rows of tables, in their order, with all of their columns.

Rows are read in chunks, sorted by length within a chunk, and written in the order of the input. The file appears under
its name only when it is complete; a run that was interrupted starts again. Rows that cannot be read or have no text are
listed in `OUTPUT.quarantine.jsonl` with their position and the reason.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shared.cli.command_line import CommandResult
from shared.cli.progress import Progress, format_seconds
from shared.errors import InputError, UsageError
from shared.inputs.options import from_config
from shared.inputs.rows import QuarantinedRow, SourceRow
from shared.inputs.sources import Source, open_source
from shared.storage.objects import is_remote
from shared.storage.store import local_path
from shared.storage.whole_file import check_target, whole_file, whole_files
from trainer.finite import check_answers
from trainer.predict.columns import Floats, OutputColumns
from trainer.predict.config import PredictConfig
from trainer.predict.models import Predictor, open_predictor
from trainer.predict.writers import as_table, check_suffix, open_writer

QUARANTINE = ".quarantine.jsonl"
LONGEST_SCORE = 5.0
"""STS-B's scale ends here, and the benchmark refuses larger answers."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Consecutive rows of the input: the usable ones, and those set aside."""

    rows: list[SourceRow] = field(default_factory=list)
    refused: list[QuarantinedRow] = field(default_factory=list)


def run_command(config: PredictConfig) -> CommandResult:
    """Predict and write --output. Raises ExpectedError."""
    check_suffix(config.output)
    check_target(config.output, "--output")
    if config.threads:
        torch.set_num_threads(config.threads)
    return predict_table(config, open_predictor(config))


def predict_table(config: PredictConfig, model: Predictor) -> CommandResult:
    """As `run_command`, with a model in memory. Raises ExpectedError."""
    began = time.monotonic()
    output = config.output
    source = open_source(from_config(config, input=config.data))
    if any(_is_same(output, file.path) for file in source.files):
        raise UsageError(f"--output {output} is one of the files of --data; choose another file")
    columns = OutputColumns(
        source=source,
        labels=model.labels(config.task),
        prefix=config.prefix,
        multi_label=model.multi_label,
        threshold=config.threshold,
    )
    write = _write_submission if config.submission else _write_table
    done, refused = write(config, columns, model)
    seconds = time.monotonic() - began
    summary = {
        "output": output,
        "rows": done,
        "quarantined": refused,
        "seconds": round(seconds, 1),
        "labels": columns.labels,
    }
    text = f"{done:,} rows in {format_seconds(seconds)} ({done / seconds:,.0f} rows/s): {output}"
    if refused:
        text += f"\n{refused:,} rows were set aside: {output}{QUARANTINE}"
    return CommandResult(summary, text)


def _write_table(config: PredictConfig, columns: OutputColumns, model: Predictor) -> tuple[int, int]:
    """Returns the numbers of rows written and set aside."""
    schema = columns.schema()
    done = refused = 0
    with whole_files(f"{config.output}{QUARANTINE}", config.output) as (aside, path), contextlib.ExitStack() as files:
        writer = files.enter_context(contextlib.closing(open_writer(check_suffix(config.output), path, schema)))
        quarantine = files.enter_context(aside.open("w", encoding="utf-8"))
        for chunk in _chunks(config, columns.source):
            for one in chunk.refused:
                quarantine.write(json.dumps(_record(one), ensure_ascii=False) + "\n")
            if chunk.rows:
                logits = _logits(config, chunk, model)
                writer.write(as_table(schema, columns.columns(chunk.rows, logits)))
            done += len(chunk.rows)
            refused += len(chunk.refused)
        if not refused:
            aside.unlink()
    return done, refused


def _write_submission(config: PredictConfig, columns: OutputColumns, model: Predictor) -> tuple[int, int]:
    """`index` and `prediction` as the benchmark reads them. Raises InputError for an unusable row."""
    done = 0
    with whole_file(config.output) as path, path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("index\tprediction\n")
        for chunk in _chunks(config, columns.source):
            if chunk.refused:
                first = chunk.refused[0]
                raise InputError(f"{first.where}: {first.reason}; a submission needs a prediction for every row")
            answers = columns.predicted(_logits(config, chunk, model))
            if columns.labels is None:
                answers = [f"{min(max(value, 0.0), LONGEST_SCORE):.3f}" for value in answers]
            file.writelines(f"{done + place}\t{answer}\n" for place, answer in enumerate(answers))
            done += len(chunk.rows)
    return done, 0


def _chunks(config: PredictConfig, source: Source) -> Iterator[_Chunk]:
    """The input in pieces of --chunk-rows, with progress."""
    progress = Progress("predict", source.num_rows, "rows")
    chunk = _Chunk()
    for count, item in enumerate(source.rows(), start=1):
        if isinstance(item, SourceRow):
            chunk.rows.append(item)
        else:
            chunk.refused.append(item)
        if count % config.chunk_rows == 0:
            yield chunk
            progress.update(count)
            chunk = _Chunk()
    if chunk.rows or chunk.refused:
        yield chunk
    progress.close()


def _logits(config: PredictConfig, chunk: _Chunk, model: Predictor) -> Floats:
    """(rows, C). Raises ModelError for logits that are not finite."""
    first, second = _texts(chunk)
    logits = model.logits(first, second, config.batch_size)
    check_answers(logits, first, f"--model {config.model}")
    return logits


def _texts(chunk: _Chunk) -> tuple[list[str], list[str] | None]:
    second = [row.text_b or "" for row in chunk.rows]
    has_pairs = bool(chunk.rows) and chunk.rows[0].text_b is not None
    return [row.text_a for row in chunk.rows], second if has_pairs else None


def _record(row: QuarantinedRow) -> dict[str, Any]:
    return {"position": row.position, "where": row.where, "reason": row.reason, "raw": row.raw}


def _is_same(output: str, path: str) -> bool:
    """Whether the output is this file of the input."""
    if is_remote(output) or is_remote(path):
        return output == path
    one, other = Path(local_path(output)), Path(path)
    return one.exists() and other.exists() and one.samefile(other)
