"""The training, dev and test files that the steps read, written once under OUTPUT/data."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import InputError, ManifestError
from shared.inputs.rows import SourceRow
from shared.inputs.table_files import SUFFIXES
from shared.model_folder import model_folder
from shared.storage.input_files import expand, sha256_of
from trainer.data.mining import mine_pairs, shuffled
from trainer.data.split import text_hashes
from trainer.models import load_tokenizer
from trainer.pipeline.config import DistillConfig
from trainer.pipeline.inspection import (
    Inspection,
    check_labels,
    read_rows,
    read_unlabelled,
    texts_of,
    without_rare,
)
from trainer.pipeline.parts import DEV, TEST, TRAIN, assign_parts, limited
from trainer.pipeline.place import Place

SHARE = 0.1
FACTS = "data/split.json"
TRAIN_FILE, DEV_FILE, TEST_FILE = "data/train.parquet", "data/dev.parquet", "data/test.parquet"
UNLABELLED_FILE, MINED_FILE = "data/unlabelled.parquet", "data/mined.parquet"
MIN_PART_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Files of OUTPUT/data and their row counts. sources: digests of the files they were made from.

    unlabelled, mined: files of rows that only the student trains on, if any.
    teacher_column: their column of given teacher logits, in the order of `teacher_classes`, or of one number.
    """

    train: str
    dev: str
    test: str
    text_columns: tuple[str, ...]
    label_column: str
    num_train: int
    num_dev: int
    num_test: int
    num_classes: int
    sources: dict[str, str]
    leaked: int = 0
    teacher_column: str | None = None
    teacher_classes: tuple[str, ...] = ()
    unlabelled: str | None = None
    num_unlabelled: int = 0
    mined: str | None = None
    num_mined: int = 0

    @property
    def has_pairs(self) -> bool:
        """Whether rows have two texts."""
        return len(self.text_columns) == 2

    def column_options(self) -> list[str]:
        """The options that name the columns of these files."""
        return ["--text-column", *self.text_columns, "--label-column", self.label_column]

    def answer_options(self) -> list[str]:
        """The options of `trainer task` that name the answers in these files."""
        if self.teacher_column is None:
            return []
        classes = ["--teacher-classes", *self.teacher_classes] if self.teacher_classes else []
        form = "logits" if self.teacher_classes else "number"
        return ["--teacher-column", self.teacher_column, "--teacher-form", form, *classes]


def read_prepared(config: DistillConfig, place: Place) -> Prepared | None:
    """What an earlier call prepared; None when there is nothing. Raises ManifestError when its files changed since."""
    if not place.store.exists(FACTS):
        return None
    try:
        found: Prepared = TypeAdapter(Prepared).validate_python(json.loads(place.store.read(FACTS)))
    except ValueError as error:
        problem = str(error).splitlines()[0]
        raise ManifestError(f"{place.path(FACTS)} is damaged ({problem}); remove {config.output}") from error
    if found.sources != _digests(config):
        raise ManifestError(
            f"{config.output} was created from files that have changed since; use another --output for the new files"
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Training rows, in an order independent of the file's, validation rows (dev) and test rows.

    leaked: training rows left out because --dev or --test has the same text. unlabelled: rows of --unlabelled, without
    the `repeated` ones whose text is in a labelled row or an earlier one. notes: further messages for the user. mined:
    pairs of texts from different training rows.
    """

    train: list[SourceRow]
    dev: list[SourceRow]
    test: list[SourceRow]
    leaked: int
    unlabelled: list[SourceRow]
    repeated: int
    notes: tuple[str, ...] = ()
    mined: list[SourceRow] = field(default_factory=list)


def split_rows(config: DistillConfig, inspection: Inspection, classes: Collection[str]) -> Parts:
    """Split in memory. classes: the classes that the models predict; empty for regression.

    Raises InputError when a part would be too small, or has a label that is not one of the classes.
    """
    hashes = inspection.hashes()
    apart: dict[int, list[SourceRow]] = {}
    notes = []
    for part, (option, path) in _given(config).items():
        found = read_rows(path, config, inspection)
        apart[part] = without_rare(found, inspection.rare)
        if left_out := len(found) - len(apart[part]):
            notes.append(f"decided: {left_out:,} rows of rare classes are dropped from {option} {path}")
        check_labels(apart[part], classes, inspection, f"{option} {path}")
    shares = [0.0 if part in apart else SHARE for part in (DEV, TEST)]
    parts = limited(assign_parts(hashes, inspection.classes(), *shares), hashes)
    known = [text_hashes(*texts_of(rows, inspection.has_pairs)) for rows in apart.values()]
    leaked = np.isin(hashes, np.concatenate(known)) if known else np.zeros(len(hashes), bool)
    # Neighbouring rows of a file are often alike, and perhaps only the first rows are augmented.
    order = np.argsort(hashes, kind="stable")
    rows: dict[int, list[SourceRow]] = {
        part: [inspection.rows[index] for index in order if parts[index] == part and not leaked[index]]
        for part in (TRAIN, DEV, TEST)
    }
    rows |= apart
    for part, name in ((TRAIN, "training"), (DEV, "validation"), (TEST, "testing")):
        if len(rows[part]) < MIN_PART_ROWS:
            raise InputError(f"{config.data}: only {len(rows[part])} rows are left for {name}; label more rows")
    unlabelled, repeated = _unlabelled(config, inspection, [hashes, *known])
    return Parts(
        train=rows[TRAIN],
        dev=rows[DEV],
        test=rows[TEST],
        leaked=int(leaked.sum()),
        unlabelled=unlabelled,
        repeated=repeated,
        notes=tuple(notes),
    )


def _unlabelled(
    config: DistillConfig, inspection: Inspection, known: Sequence[NDArray[np.uint64]]
) -> tuple[list[SourceRow], int]:
    """The rows of --unlabelled with new texts, in hash order, and the number of the others. Raises InputError."""
    if not config.unlabelled:
        return [], 0
    found = read_unlabelled(config, inspection)
    hashes = text_hashes(*texts_of(found, inspection.has_pairs))
    values, first = np.unique(hashes, return_index=True)
    is_new = ~np.isin(values, np.concatenate(known))
    # In hash order, because perhaps only the first rows are augmented.
    return [found[index] for index in first[is_new]], len(found) - int(is_new.sum())


def with_mined(config: DistillConfig, parts: Parts, per_text: int) -> Parts:
    """The same with up to `per_text` new pairs for each first text of the training rows, in random order.

    Pairs that occur in the dev or test rows are left out. Raises ModelError.
    """
    if not per_text:
        return parts
    named, option = (config.teacher, "--teacher") if config.teacher else (config.encoder, "--encoder")
    path = resolve_encoder(named) if named == EMBEDDED else model_folder(named, option)
    tokenizer = load_tokenizer(path, option)
    texts = [[row.text_a for row in parts.train], [row.text_b or "" for row in parts.train]]
    tokens = [tokenizer(side, add_special_tokens=False, verbose=False)["input_ids"] for side in texts]
    kept_apart = {(row.text_a, row.text_b) for row in (*parts.dev, *parts.test)}
    pairs = [
        (texts[0][first], texts[1][second])
        for first, second in mine_pairs(texts[0], texts[1], tokens[0], tokens[1], per_text)
    ]
    rows = [SourceRow(len(parts.train) + number, *pair) for number, pair in enumerate(pairs) if pair not in kept_apart]
    # Neighbouring pairs share a text, and the trainer shuffles rows only within a window of the job's order.
    return replace(parts, mined=[rows[index] for index in shuffled(len(rows), config.seed)])


def describe_parts(config: DistillConfig, place: Place, inspection: Inspection, parts: Parts) -> Prepared:
    """What `write_parts` returns, without writing anything."""
    return Prepared(
        train=place.path(TRAIN_FILE),
        dev=place.path(DEV_FILE),
        test=place.path(TEST_FILE),
        text_columns=inspection.text_columns,
        label_column=inspection.label_column,
        num_train=len(parts.train),
        num_dev=len(parts.dev),
        num_test=len(parts.test),
        num_classes=len(inspection.counts),
        sources=_digests(config),
        leaked=parts.leaked,
        unlabelled=place.path(UNLABELLED_FILE) if parts.unlabelled else None,
        num_unlabelled=len(parts.unlabelled),
        mined=place.path(MINED_FILE) if parts.mined else None,
        num_mined=len(parts.mined),
        teacher_column=None if inspection.answers is None else inspection.answers.column,
        teacher_classes=() if inspection.answers is None else inspection.answers.labels or (),
    )


def write_parts(config: DistillConfig, place: Place, inspection: Inspection, parts: Parts) -> Prepared:
    """Write the files of OUTPUT/data, and last their description. Raises StoreError."""
    prepared = describe_parts(config, place, inspection, parts)
    files = {TRAIN_FILE: parts.train, DEV_FILE: parts.dev, TEST_FILE: parts.test}
    files |= {UNLABELLED_FILE: parts.unlabelled, MINED_FILE: parts.mined}
    for name, rows in files.items():
        if rows or name not in (UNLABELLED_FILE, MINED_FILE):
            place.store.put(name, parquet_of(rows, inspection))
    place.store.put(FACTS, json.dumps(asdict(prepared), indent=1).encode())
    return prepared


def _given(config: DistillConfig) -> dict[int, tuple[str, str]]:
    """Part -> the option that names a file for it, and the file."""
    named = {DEV: ("--dev", config.dev), TEST: ("--test", config.test)}
    return {part: (option, path) for part, (option, path) in named.items() if path is not None}


def _digests(config: DistillConfig) -> dict[str, str]:
    named = {"data": config.data, "dev": config.dev, "test": config.test}
    texts = {f"unlabelled {path}": path for path in (expand(config.unlabelled, SUFFIXES) if config.unlabelled else ())}
    return {name: sha256_of(path) for name, path in (named | texts).items() if path is not None}


def parquet_of(rows: Sequence[SourceRow], inspection: Inspection) -> bytes:
    """Rows as a Parquet file with the columns of the input."""
    columns = {inspection.text_columns[0]: pa.array([row.text_a for row in rows], pa.string())}
    if inspection.has_pairs:
        columns[inspection.text_columns[1]] = pa.array([row.text_b for row in rows], pa.string())
    labels = [row.label for row in rows]
    try:
        columns[inspection.label_column] = pa.array(labels, inspection.label_type)
    except (pa.ArrowException, TypeError):
        # A dev or test file whose labels have another type.
        columns[inspection.label_column] = pa.array([str(label) for label in labels], pa.string())
    if inspection.answers is not None and rows and rows[0].rest:
        columns[inspection.answers.column] = pa.array([row.rest[0] for row in rows], pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())
