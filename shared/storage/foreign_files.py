"""Detects files that are not what their names say: an unfetched LFS pointer, a web page, an archive, another format.

Read as text, they would give garbage or a misleading error.
"""

from __future__ import annotations

import codecs
import re

START_BYTES = 2048
"""Leading bytes of a file that identify its type."""
COMPRESSIONS = (
    (re.compile(rb"\x1f\x8b\x08"), ".gz"),
    (re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)"), ".bz2"),
    (re.compile(rb"\xfd7zXZ\x00"), ".xz"),
    (re.compile(rb"\x28\xb5\x2f\xfd"), ".zst"),
)
"""Magic bytes of compressed files -> their suffix."""
_OFFICE = "an Excel workbook or another Office document: save the sheet as CSV (UTF-8)"
_MEMBERS_OF_OFFICE = (b"[Content_Types].xml", b"docProps/", b"_rels/", b"xl/", b"vnd.oasis.opendocument")
_PAGE = re.compile(rb"<(!doctype\s+html|html)\b", re.IGNORECASE)
_POINTER = b"version https://git-lfs.github.com/spec/"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF-", "a PDF document: export its text"),
    (b"{\\rtf", "a word-processor document (RTF): save it as plain text"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OFFICE),
    (b"SQLite format 3\x00", "an SQLite database: export the table as CSV"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file: write the table as Parquet or CSV"),
    (b"Obj\x01", "an Avro file: write the table as Parquet or CSV"),
    (b"ARROW1\x00\x00", "an Arrow file: give it the suffix .arrow"),
    (b"\x93NUMPY", "a NumPy array: write the table as Parquet or CSV"),
)


def what_came_instead(start: bytes) -> str | None:
    """What was stored in place of the file, judging by its start, and what to do about it; None if nothing is wrong."""
    if start.startswith(_POINTER):
        return "a Git LFS pointer, not the file itself: fetch the file with `git lfs pull`"
    text = start.removeprefix(codecs.BOM_UTF8).lstrip()
    # In a TSV file without a header, a text may itself be a web page.
    if _PAGE.match(text) and b"\t" not in text.partition(b"\n")[0]:
        return (
            "an HTML page, such as a sign-in or error page, not the file itself: open it in a browser to see why, and "
            "download the file again"
        )
    if text.startswith(b"<?xml"):
        return "an XML document, such as an error message from a store: open it to see why, and download the file again"
    return None


def what_it_is(start: bytes) -> str | None:
    """As `what_came_instead`, plus other kinds of files that are not tables; None for text and unknown content.

    start: its first START_BYTES bytes, or all if there are fewer.
    """
    if (kind := what_came_instead(start)) is not None:
        return kind
    for mark, kind in _STARTS:
        if start.startswith(mark):
            return kind
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        is_office = any(one in start for one in _MEMBERS_OF_OFFICE)
        return _OFFICE if is_office else "a zip archive: give it the suffix .zip, or unpack it"
    if start.startswith(b"PAR1") and any(byte < 9 for byte in start[4:64]):
        return "a Parquet file: give it the suffix .parquet"
    if start[257:262] == b"ustar":
        return "a tar archive: unpack it"
    if re.match(rb"\x80[\x02-\x05]", start):
        return "a Python pickle: write the table as Parquet or CSV"
    return None


def compression_of(start: bytes) -> str | None:
    """The suffix for this file's compression; None if it is not compressed."""
    return next((suffix for mark, suffix in COMPRESSIONS if mark.match(start)), None)
