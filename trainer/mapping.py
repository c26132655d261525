"""g(m): the teacher layer that each student layer learns from (section 3.1 of arXiv 1909.10351)."""

from __future__ import annotations

from shared.errors import UsageError

STRATEGIES = ("uniform", "top", "bottom")


def map_layers(strategy: str, num_student: int, num_teacher: int) -> tuple[int, ...]:
    """`mapping[m - 1]` in 1..N for each student layer m in 1..M, non-decreasing.

    `uniform` is g(m) = m N / M, rounded to the nearest layer where M does not divide N; `top` takes the last M layers,
    `bottom` the first M; or a comma-separated list. Raises UsageError when the list does not fit.
    """
    if num_student > num_teacher and strategy in STRATEGIES:
        raise UsageError(
            f"--mapping {strategy}: the student has {num_student} layers, more than its teacher ({num_teacher}); list "
            "one teacher layer for each student layer"
        )
    if strategy == "uniform":
        return tuple((2 * m * num_teacher + num_student) // (2 * num_student) for m in range(1, num_student + 1))
    if strategy == "top":
        return tuple(range(num_teacher - num_student + 1, num_teacher + 1))
    if strategy == "bottom":
        return tuple(range(1, num_student + 1))
    try:
        listed = tuple(int(part) for part in strategy.split(","))
    except ValueError:
        raise UsageError(f"--mapping {strategy}: use {', '.join(STRATEGIES)}, or layers such as 3,6,9,12") from None
    if len(listed) != num_student:
        raise UsageError(f"--mapping {strategy} lists {len(listed)} layers, but the student has {num_student}")
    if any(not 1 <= layer <= num_teacher for layer in listed) or list(listed) != sorted(listed):
        raise UsageError(f"--mapping {strategy}: list teacher layers from 1 to {num_teacher} in ascending order")
    return listed
