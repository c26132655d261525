"""A measurement from the seconds of teacher and student, however long those were."""

from __future__ import annotations

import pytest

from trainer.report.timing import Inputs, measurement_of


def test_the_ratio_is_the_teachers_time_over_the_students_in_each_alternation() -> None:
    inputs = Inputs(batches=[], width=10.04, real_pieces=8.0)
    found = measurement_of("fp32", 8, inputs, [[0.4, 0.5, 0.6], [0.1, 0.1, 0.2]])
    assert (found.teacher_milliseconds, found.student_milliseconds) == (500.0, 100.0)
    assert (found.teacher_texts_per_second, found.student_texts_per_second) == (16.0, 80.0)
    # The ratios are 4, 5 and 3.
    assert [found.ratio_low, found.ratio, found.ratio_high] == pytest.approx([3.5, 4.0, 4.5])
    assert (found.alternations, found.batch_size, found.width, found.real_pieces) == (3, 8, 10.0, 8.0)
