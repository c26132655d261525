"""`trainer distill --seeds`: one teacher and one augmentation, several students, the best of which is handed on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.support.pipeline import Workshop, labelled, run_command


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_best_of_several_students_is_handed_on(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    data, output = workshop.save("reviews.csv", labelled(240)), tmp_path / "out"
    arguments = [*workshop.arguments(data, output), "--seeds", "2", "--seed", "5", "--no-report"]
    finished = run_command(*arguments)
    assert finished.returncode == 0, finished.stderr
    names = ["student", "student-seed-6"]
    results = {name: json.loads((output / name / "result.json").read_text()) for name in names}
    assert [results[name]["seed"] for name in names] == [5, 6]
    best = max(names, key=lambda name: results[name]["score"])
    weights = {name: load_file(output / name / "model" / "model.safetensors") for name in names}
    handed = load_file(output / "model" / "model.safetensors")
    assert all((handed[key] == weights[best][key]).all() for key in handed)
    differing = [name for name in names if any((handed[key] != weights[name][key]).any() for key in handed)]
    assert differing == [name for name in names if name != best]
    outcome = json.loads((output / "result.json").read_text())
    assert outcome["metrics"] == results[best]["test"]["scores"]
    assert outcome["students"] == {name: results[name]["test"]["scores"] for name in names}
    assert "all 2 students" in finished.stdout
    assert "2 students, seeds 5 to 6; the best on the validation rows is kept" in finished.stderr
    assert f"$ python -m trainer export --model {output / best} --format onnx" in finished.stderr

    # Nothing is done twice, and another number of students is another distillation.
    again = run_command(*arguments)
    assert again.returncode == 0, again.stderr
    assert "student-seed-6: already done" in again.stderr
    other = run_command(*[*arguments, "--seeds", "3"])
    assert other.returncode != 0
    assert "a different seeds (2, now 3)" in other.stderr
