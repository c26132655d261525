"""Protected kinds of spans, regular expressions and words, as options and as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from shared.errors import UsageError

PROTECTED_KINDS: tuple[str, ...] = ("urls", "emails", "html", "mentions", "numbers")
PROTECT_BY_DEFAULT = ("urls", "emails", "html")


def as_kinds_and_patterns(value: Any) -> Any:
    """`--protect` as a tuple: the kinds in a fixed order, then the regular expressions. Raises ValueError.

    Each text is a comma-separated list of kinds; the remainder after the last kind is one regular expression, which may
    contain commas.
    """
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        return value
    if [one.strip() for one in value] == ["none"]:
        return ()
    kinds: set[str] = set()
    patterns: dict[str, None] = {}
    for text in value:
        rest = text
        while rest:
            first, _, after = rest.partition(",")
            if first.strip() not in PROTECTED_KINDS:
                patterns[_checked(rest)] = None
                break
            kinds.add(first.strip())
            rest = after
    return tuple(kind for kind in PROTECTED_KINDS if kind in kinds) + tuple(patterns)


def _checked(pattern: str) -> str:
    """Raises ValueError for an invalid expression, and for a word that is probably a misspelt kind."""
    names = [one.strip() for one in pattern.split(",")]
    wrong = next((one for one in names if one not in PROTECTED_KINDS), "")
    if all(one.isalpha() for one in names):
        raise ValueError(
            f"Unknown kind '{wrong}'; the kinds are {', '.join(PROTECTED_KINDS)}, or none on its own. To protect "
            "words, use --protect-words"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"Not a valid regular expression: '{pattern[:80]}': {error}") from error
    return pattern


def as_words(value: Any) -> Any:
    """Sorted, distinct, non-empty words, so that the order of a list does not matter."""
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(one, str) for one in value):
        return value
    return tuple(sorted({word for one in value if (word := " ".join(one.split()).casefold())}))


def read_word_files(flag: str, paths: Iterable[str]) -> Sequence[str]:
    """The lines of files of words. Raises UsageError naming the file that cannot be read."""
    words: list[str] = []
    for path in paths:
        try:
            words += Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"{flag} {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise UsageError(f"{flag} {path} is not UTF-8 text: {error}") from error
    return words
