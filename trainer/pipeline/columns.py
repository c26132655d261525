"""Finds the text and label columns that the user did not name: by their names, and only if unambiguous."""

from __future__ import annotations

from collections.abc import Sequence

from shared.errors import UsageError

LABELS = (
    *("label", "labels", "class", "category", "target", "sentiment", "stars", "rating", "score", "intent", "topic"),
    *("y", "gold_label", "is_duplicate"),
)
TEXTS = (
    *("text", "sentence", "review", "body", "content", "comment", "message", "document", "utterance", "tweet"),
    *("headline", "description", "question"),
)
PAIRS = (
    *(("sentence1", "sentence2"), ("text_a", "text_b"), ("text1", "text2"), ("premise", "hypothesis")),
    *(("question1", "question2"), ("question", "sentence"), ("question", "answer")),
)


def choose_columns(
    names: Sequence[str], texts: Sequence[str], label: str | None, path: str
) -> tuple[tuple[str, ...], str, list[str]]:
    """(text columns, label column, messages about the choice). Raises UsageError when it is ambiguous.

    texts, label: the user's own choices, used unchanged.
    """
    decided = []
    lower = {name.strip().lower(): name for name in names}
    if label is None:
        label = _label(lower, texts, names)
        if label is None:
            raise UsageError(f"{path}: which column is the label? Name it with --label-column; {_listed(names)}")
        decided.append(f"the label is column {label!r}")
    if not texts:
        texts = _texts(lower, label, names)
        if not texts:
            raise UsageError(f"{path}: which column is the text? Name it with --text-column; {_listed(names)}")
        decided.append(f"the text is {' and '.join(f'column {name!r}' for name in texts)}")
    return tuple(texts), label, decided


def _label(lower: dict[str, str], texts: Sequence[str], names: Sequence[str]) -> str | None:
    found = [lower[name] for name in LABELS if name in lower and lower[name] not in texts]
    if len(found) == 1:
        return found[0]
    others = [name for name in names if name not in texts]
    return others[0] if not found and texts and len(others) == 1 else None


def _texts(lower: dict[str, str], label: str, names: Sequence[str]) -> tuple[str, ...]:
    pairs = [pair for pair in PAIRS if set(pair) <= set(lower) and label not in (lower[pair[0]], lower[pair[1]])]
    if len(pairs) == 1:
        return tuple(lower[name] for name in pairs[0])
    found = [lower[name] for name in TEXTS if name in lower and lower[name] != label]
    if not pairs and len(found) == 1:
        return (found[0],)
    others = [name for name in names if name != label]
    return (others[0],) if not pairs and not found and len(others) == 1 else ()


def _listed(names: Sequence[str]) -> str:
    return f"the columns are {', '.join(names)[:300]}"
