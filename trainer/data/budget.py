"""How long a stage trains: a number of passes over its data, or a number of tokens (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


class Budget(Protocol):
    """The end of a stage. position: passes done, fractions included; tokens: real tokens done in this stage."""

    @property
    def total(self) -> float:
        """Passes or tokens in all."""
        ...

    @property
    def num_epochs(self) -> int | None:
        """Number of epochs that can be reached; None when only tokens are counted."""
        ...

    def share(self, position: float, tokens: int) -> float:
        """Completed share of the stage; the learning rate schedule follows it."""
        ...

    def is_spent(self, position: float, tokens: int) -> bool:
        """Whether the stage ends here."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """`total` passes; the last one may be partial."""

    total: float

    @property
    def num_epochs(self) -> int:
        """Number of epochs that can be reached."""
        return math.ceil(self.total)

    def share(self, position: float, tokens: int) -> float:
        """Passes done, as a share of the total."""
        return position / self.total

    def is_spent(self, position: float, tokens: int) -> bool:
        """Whether all passes are done."""
        return position >= self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """At least `total` real tokens, over as many epochs as that takes."""

    total: int

    @property
    def num_epochs(self) -> None:
        """No limit."""
        return None

    def share(self, position: float, tokens: int) -> float:
        """Tokens done, as a share of the total."""
        return tokens / max(self.total, 1)

    def is_spent(self, position: float, tokens: int) -> bool:
        """Whether all tokens are done."""
        return tokens >= self.total
