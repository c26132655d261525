"""GLUE tasks: text and label columns of their TSV files, the reference's N_a, and their metrics."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import UsageError


@dataclass(frozen=True, slots=True)
class Task:
    """A GLUE task. Columns are 0-based indices into the TSV; `labels` is None for a regression task."""

    name: str
    text_columns: tuple[int, ...]
    label_column: int
    num_columns: int
    has_header: bool
    labels: tuple[str, ...] | None
    n_a: int
    metrics: tuple[str, ...]


_ENTAILMENT = ("entailment", "not_entailment")
TASKS = {
    task.name: task
    for task in (
        Task("CoLA", (3,), 1, 4, False, ("0", "1"), 30, ("matthews",)),
        Task("SST-2", (0,), 1, 2, True, ("0", "1"), 20, ("accuracy",)),
        Task("MRPC", (3, 4), 0, 5, True, ("0", "1"), 30, ("f1", "accuracy")),
        Task("STS-B", (7, 8), 9, 10, True, None, 30, ("pearson", "spearman")),
        Task("QQP", (3, 4), 5, 6, True, ("0", "1"), 10, ("f1", "accuracy")),
        Task("MNLI", (8, 9), 11, 12, True, ("contradiction", "entailment", "neutral"), 10, ("accuracy",)),
        Task("QNLI", (1, 2), 3, 4, True, _ENTAILMENT, 20, ("accuracy",)),
        Task("RTE", (1, 2), 3, 4, True, _ENTAILMENT, 30, ("accuracy",)),
        Task("WNLI", (1, 2), 3, 4, True, ("0", "1"), 30, ("accuracy",)),
    )
}


def get_task(name: str) -> Task:
    """A task by name, ignoring case. Raises UsageError listing the known names."""
    for task in TASKS.values():
        if task.name.lower() == name.lower():
            return task
    raise UsageError(f"--task {name}: unknown task; known are {', '.join(TASKS)}. For other data use --text-column")
