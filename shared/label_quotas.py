"""N_a of each label (`--n-a-per-label rare=60 common=5`): more samples of rare classes, fewer of common ones (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LARGEST = 10_000
"""The largest N_a, here and in --n-a."""


@dataclass(frozen=True, slots=True)
class LabelQuotas:
    """numbers: label as text -> samples per row with it; unlabelled: samples of a row without a label, None for N_a."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    unlabelled: int | None = None

    @classmethod
    def parse(cls, options: Sequence[str], unlabelled: int | None = None) -> LabelQuotas:
        """Parse LABEL=N options; the label may contain a "=". Raises ValueError naming the malformed option."""
        numbers: dict[str, int] = {}
        for option in options:
            label, separator, number = option.rpartition("=")
            if not (separator and label and number.isascii() and number.isdigit() and int(number) <= LARGEST):
                raise ValueError(f"--n-a-per-label {option}: write LABEL=N, with N from 0 to {LARGEST:,}")
            if label in numbers:
                raise ValueError(f"--n-a-per-label names {label} twice")
            numbers[label] = int(number)
        return cls(numbers, unlabelled)

    def options(self) -> tuple[str, ...]:
        """The inverse of `parse`."""
        return tuple(f"{label}={number}" for label, number in self.numbers.items())

    def of_rows(self, labels: Iterable[Any], n_a: int) -> NDArray[np.int64]:
        """(rows,) int64 samples of each row: its label's number, the largest if it has several labels, else `n_a`.

        A row without a label (None) has `unlabelled` samples.
        """
        # Imported here, so that the options, which every --help needs, load neither numpy nor Arrow.
        import numpy as np

        from shared.inputs.labels import label_text

        return np.asarray([self._of(label, n_a, label_text) for label in labels], np.int64)

    def largest(self, n_a: int) -> int:
        """The most samples that a row can have."""
        return max([n_a, *self.numbers.values(), self.unlabelled or 0])

    def check_known(self, labels: Iterable[Any], where: str) -> None:
        """Raises InputError for a quota of a label that is not among the input's `labels`."""
        from shared.inputs.labels import label_text

        known = {label_text(label) for label in labels if label is not None}
        unknown = [label for label in self.numbers if label not in known]
        if unknown:
            raise InputError(
                f"--n-a-per-label: {where} has no label {unknown[0][:40]!r}; its labels are "
                f"{', '.join(sorted(known))[:200]}"
            )

    def _of(self, label: Any, n_a: int, label_text: Callable[[Any], str]) -> int:
        if isinstance(label, list):
            return max((self.numbers[one] for one in map(label_text, label) if one in self.numbers), default=n_a)
        if label is None:
            return n_a if self.unlabelled is None else self.unlabelled
        return self.numbers.get(label_text(label), n_a)
