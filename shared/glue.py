"""GLUE tasks: text and label columns of their TSV files, the reference's N_a, and their metrics.

The splits of a task have different layouts (MNLI's dev files have 16 columns, its train file 12; test files have no
label), so columns are found by the names in the header, never by their position under another header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shared.errors import InputError, UsageError


@dataclass(frozen=True, slots=True)
class Task:
    """A GLUE task. `labels` is None for a regression task.

    text_columns, label_column, num_columns: 0-based indices into the training TSV. text_names, label_name: names of
    these columns in the header of every split. unlabelled: the columns of files without labels, such as test.tsv.
    """

    name: str
    text_columns: tuple[int, ...]
    label_column: int
    num_columns: int
    has_header: bool
    labels: tuple[str, ...] | None
    n_a: int
    metrics: tuple[str, ...]
    text_names: tuple[str, ...]
    label_name: str
    unlabelled: tuple[str, ...]

    def is_header(self, first_line: Sequence[str]) -> bool:
        """Whether the cells of a file's first line are column names. CoLA's labelled files have no header."""
        return self.has_header or tuple(cell.strip() for cell in first_line) == self.unlabelled

    def find_columns(self, path: str, names: Sequence[str]) -> tuple[tuple[int, ...], int | None]:
        """Indices of the text columns and of the label; None for a file without labels.

        names: the header, or `column_0`, `column_1`, ... for a file without one. Raises InputError for a layout that
        matches no split of the task.
        """
        found = [name.strip() for name in names]
        if not self.has_header and found == [f"column_{index}" for index in range(self.num_columns)]:
            return self.text_columns, self.label_column
        if all(name in found for name in self.text_names):
            texts = tuple(found.index(name) for name in self.text_names)
            if self.label_name in found:
                return texts, found.index(self.label_name)
            if set(found) <= set(self.unlabelled):
                return texts, None
        wanted = (
            f"columns {', '.join((*self.text_names, self.label_name))}"
            if self.has_header
            else f"{self.num_columns} columns without a header"
        )
        raise InputError(
            f"{path} line 1: {len(found)} columns ({', '.join(found)[:200]}), but --task {self.name} needs {wanted}. "
            "Check the delimiter, or name the columns with --text-column and --label-column."
        )


_ENTAILMENT = ("entailment", "not_entailment")
_SENTENCES = ("sentence1", "sentence2")
_MNLI_TEST = (
    *("index", "promptID", "pairID", "genre", "sentence1_binary_parse", "sentence2_binary_parse"),
    *("sentence1_parse", "sentence2_parse", "sentence1", "sentence2"),
)
_STS_B_TEST = ("index", "genre", "filename", "year", "old_index", "source1", "source2", *_SENTENCES)
TASKS = {
    task.name: task
    for task in (
        Task(
            *("CoLA", (3,), 1, 4, False, ("0", "1"), 30, ("matthews",)),
            *(("sentence",), "label", ("index", "sentence")),
        ),
        Task(
            *("SST-2", (0,), 1, 2, True, ("0", "1"), 20, ("accuracy",)),
            *(("sentence",), "label", ("index", "sentence")),
        ),
        Task(
            *("MRPC", (3, 4), 0, 5, True, ("0", "1"), 30, ("f1", "accuracy")),
            *(("#1 String", "#2 String"), "Quality", ("index", "#1 ID", "#2 ID", "#1 String", "#2 String")),
        ),
        Task(
            *("STS-B", (7, 8), 9, 10, True, None, 30, ("pearson", "spearman")),
            *(_SENTENCES, "score", _STS_B_TEST),
        ),
        Task(
            *("QQP", (3, 4), 5, 6, True, ("0", "1"), 10, ("f1", "accuracy")),
            *(("question1", "question2"), "is_duplicate", ("id", "question1", "question2")),
        ),
        Task(
            *("MNLI", (8, 9), 11, 12, True, ("contradiction", "entailment", "neutral"), 10, ("accuracy",)),
            *(_SENTENCES, "gold_label", _MNLI_TEST),
        ),
        Task(
            *("QNLI", (1, 2), 3, 4, True, _ENTAILMENT, 20, ("accuracy",)),
            *(("question", "sentence"), "label", ("index", "question", "sentence")),
        ),
        Task(
            *("RTE", (1, 2), 3, 4, True, _ENTAILMENT, 30, ("accuracy",)),
            *(_SENTENCES, "label", ("index", *_SENTENCES)),
        ),
        Task(
            *("WNLI", (1, 2), 3, 4, True, ("0", "1"), 30, ("accuracy",)),
            *(_SENTENCES, "label", ("index", *_SENTENCES)),
        ),
    )
}


def get_task(name: str) -> Task:
    """A task by name, ignoring case. Raises UsageError listing the known names."""
    for task in TASKS.values():
        if task.name.lower() == name.lower():
            return task
    raise UsageError(f"--task {name}: unknown task; choose from {', '.join(TASKS)}. For other data, use --text-column")
