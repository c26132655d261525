"""The options that say how TSV and CSV files are written, for every command that reads tables."""

from __future__ import annotations

from typing import ClassVar, Literal

from shared.cli.config import CommandConfig, identity


class TableFormat(CommandConfig):
    """How the TSV and CSV files of a command are written, where detection is not enough."""

    group: ClassVar[str] = "Table format"

    delimiter: str = identity("auto", "What separates cells: a character, tab, comma, semicolon or bar.")
    quoting: Literal["auto", "csv", "none"] = identity(
        "auto", "csv: cells may be quoted. none: quotes are text, as in GLUE's files."
    )
    escape: Literal["auto", "backslash", "none"] = identity(
        "auto", "Whether a backslash escapes quotes, as Spark and MySQL write them."
    )
    encoding: str = identity("auto", "Encoding of text tables, such as cp1252; auto is UTF-8, or what a mark says.")
    header: Literal["auto", "yes", "no"] = identity(
        "auto", "Whether the first row has names; without one, columns are named by index."
    )


DETECTED = dict.fromkeys(("delimiter", "quoting", "escape", "encoding", "header"), "auto")
"""The options as outputs and runs of version 0.1.0, which do not record them, are taken to have them."""
