"""Numbers as the page shows them (pure). A value that is missing or not finite becomes a dash."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

MISSING = "–"


def points(value: Any) -> str:
    """A score times 100, as in GLUE's tables: 0.8712 -> 87.1."""
    return MISSING if not _is_finite(value) else f"{value * 100:.1f}"


def percent(value: Any, digits: int = 1) -> str:
    """0.968 -> 96.8%."""
    return MISSING if not _is_finite(value) else f"{value:.{digits}%}"


def times(value: Any) -> str:
    """7.46 -> 7.5x."""
    return MISSING if not _is_finite(value) else f"{value:.1f}×"


def millions(value: Any) -> str:
    """14,350,248 -> 14.35 M."""
    if not _is_finite(value):
        return MISSING
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{int(value):,}"


def megabytes(value: Any) -> str:
    """Bytes: 57,432,100 -> 57.4 MB."""
    if not _is_finite(value):
        return MISSING
    return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.0f} kB"


def count(value: Any) -> str:
    """14350.0 -> 14,350."""
    return MISSING if not _is_finite(value) else f"{round(value):,}"


def rate(value: Any) -> str:
    """A number per second: 12.3, or 1,630."""
    return MISSING if not _is_finite(value) else f"{value:.1f}" if value < 20 else f"{round(value):,}"


def duration(value: Any) -> str:
    """Seconds: 42 s, 7 min, 2.5 h."""
    if not _is_finite(value):
        return MISSING
    if value < 90:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def milliseconds(value: Any) -> str:
    """Three significant digits: 12.3 ms."""
    return MISSING if not _is_finite(value) else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def _is_finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)
