"""Options for the format of TSV and CSV files, for every command that reads tables."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from shared.cli.config import CommandConfig, identity


class TableFormat(CommandConfig):
    """How the text files of a command are written, where detection is not enough."""

    group: ClassVar[str] = "Table format"

    delimiter: str = identity("auto", "Cell separator: a character, tab, comma, semicolon or bar.")
    quoting: Literal["auto", "csv", "none"] = identity(
        "auto", "csv: cells may be quoted. none: quotes are text, as in GLUE's files."
    )
    escape: Literal["auto", "backslash", "none"] = identity(
        "auto", "Whether a backslash escapes quotes, as Spark and MySQL write them."
    )
    encoding: str = identity(
        "auto", "Encoding of TSV, CSV and JSON files, such as cp1252; auto follows a byte order mark, else UTF-8."
    )
    header: Literal["auto", "yes", "no"] = identity(
        "auto", "Whether the first row contains column names; if not, refer to columns by index."
    )


class LabelSets(CommandConfig):
    """Where the labels are if a row has several of them."""

    group: ClassVar[str] = "Several labels per row"

    multi_label: tuple[str, ...] = identity(
        (),
        "Instead of --label-column, if a row can have several labels: columns of 0 and 1, one per label, or one column "
        "of lists or of texts that name the labels.",
    )
    label_separator: str = identity(",", "Separator between the labels in such a text.", min_length=1)


ONE_LABEL: dict[str, Any] = {
    "missing_labels": "quarantine",
    "multi_label": [],
    "label_separator": ",",
    "n_a_per_label": [],
    "n_a_unlabelled": None,
}
"""Label options assumed for outputs and runs that do not record them."""

DETECTED: dict[str, Any] = dict.fromkeys(("delimiter", "quoting", "escape", "encoding", "header"), "auto")
"""Options assumed for outputs and runs of version 0.1.0, which do not record them."""
