"""Names of classes: which output of a model is which label of the task.

A model keeps the order of its outputs. Names are compared ignoring case, hyphens, underscores and blanks, unless these
make a number: -1 is not 1. Names that cannot be matched are rejected and never default to the task's own order: a
teacher with swapped labels would train an inverted student. `--label-map` maps them explicitly.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from shared.errors import ModelError, UsageError

_SEPARATORS = re.compile(r"[-_\s]+")
_NEGATIVE = re.compile(r"-\.?[0-9]")
_GENERIC = re.compile(r"label_?([0-9]+)", re.IGNORECASE)

# Names of GLUE's own classes 0 and 1 in models that use names instead of numbers.
_NAMES_OF_NUMBERS = {
    "CoLA": ("unacceptable", "acceptable"),
    "SST-2": ("negative", "positive"),
    "MRPC": ("not_equivalent", "equivalent"),
    "QQP": ("not_duplicate", "duplicate"),
    "WNLI": ("not_entailment", "entailment"),
}


def normal(name: str) -> str:
    """A name without case, hyphens, underscores and blanks, except those that make a number: -1, 1-2, 2020-01-01."""
    name = name.strip()
    sign = "-" if _NEGATIVE.match(name) else ""
    return sign + _SEPARATORS.sub(_kept_between_digits, name).casefold()


def class_number(name: str) -> int | None:
    """i of a generic name `LABEL_i`, None for any other name."""
    found = _GENERIC.fullmatch(name.strip())
    return int(found[1]) if found else None


def are_generic(names: Sequence[str]) -> bool:
    """Whether the names are only the numbers of the outputs: `LABEL_0`, `LABEL_1`, ..."""
    return bool(names) and all(class_number(name) == index for index, name in enumerate(names))


def parse_label_map(text: str | None) -> dict[str, str]:
    """`NAME=LABEL,...` -> {normal name: label}. Raises UsageError."""
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text else ():
        name, separator, label = (one.strip() for one in part.rpartition("="))
        if not (name and separator and label):
            raise UsageError(
                f"--label-map {text}: write NAME=LABEL,NAME=LABEL with the model's class name before each ="
            )
        if normal(name) in found:
            raise UsageError(f"--label-map {text}: {name} occurs twice")
        found[normal(name)] = label
    return found


def renamed(outputs: Sequence[str], label_map: str | None, model: str) -> tuple[str, ...]:
    """The outputs' names after --label-map. model: the option that named the model, and its value.

    Raises UsageError for a name that the model does not have, ModelError for two classes with the same name.
    """
    changes = parse_label_map(label_map)
    known = {normal(name) for name in outputs}
    unknown = [name for name in changes if name not in known]
    if unknown:
        raise UsageError(f"--label-map: the model has no class {unknown[0]}, only {', '.join(outputs)[:200]}")
    names = tuple(changes.get(normal(name), name) for name in outputs)
    if len(set(names)) != len(names):
        if label_map is None:
            raise ModelError(
                f"{model}: two of its classes have the same name: {', '.join(names)[:200]}; change id2label in its "
                "config.json"
            )
        raise UsageError(f"--label-map {label_map}: two classes of the model would get the same label")
    return names


def match_outputs(task: str, outputs: Sequence[str], labels: Sequence[str], where: str) -> tuple[str, ...]:
    """The task's label of each output of a model, in the order of the outputs.

    For tasks whose labels are 0, 1, ..., the generic names `LABEL_0`, `LABEL_1`, ... are matched by number. Raises
    ModelError when a name cannot be matched.
    """
    numbered = list(labels) == [str(index) for index in range(len(labels))]
    if numbered and are_generic(outputs):
        return tuple(labels)
    candidates: list[Mapping[str, str]] = [{normal(label): label for label in labels}]
    if numbered and task in _NAMES_OF_NUMBERS:
        candidates.append({normal(name): label for name, label in zip(_NAMES_OF_NUMBERS[task], labels, strict=True)})
    for known in candidates:
        matched = tuple(known.get(normal(name), "") for name in outputs)
        if sorted(matched) == sorted(labels):
            return matched
    example = ",".join(f"{name}={label}" for name, label in zip(outputs, labels, strict=False))
    raise ModelError(
        f"{where} has the classes {', '.join(outputs)[:200]}, and {task} has {', '.join(labels)}: the names do not "
        f"show which is which. Map them with --label-map, such as {example[:200]} if that is the order"
    )


def find_label(labels: Sequence[str], label: str) -> int | None:
    """Index of a label among the classes: by its text, else by its normal name, else as the number of `LABEL_i`."""
    if label in labels:
        return labels.index(label)
    same = [index for index, name in enumerate(labels) if normal(name) == normal(label)]
    if len(same) == 1:
        return same[0]
    if are_generic(labels) and re.fullmatch(r"[0-9]{1,6}", label) and int(label) < len(labels):
        return int(label)
    return None


def _kept_between_digits(found: re.Match[str]) -> str:
    before, after = found.string[: found.start()][-1:], found.string[found.end() :][:1]
    return "-" if before.isdigit() and after.isdigit() else ""
