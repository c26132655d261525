"""`trainer report`: real models timed side by side, a page and its figures; bad folders give one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_export import run_in_process
from tests.support.classifiers import save_classifier_of
from tests.support.command import run_command
from tests.support.runs import write_general_run, write_task_run, write_teacher_run
from trainer.report.command import run_command as report
from trainer.report.config import ReportConfig


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("report")
    teacher = write_teacher_run(root / "teacher")
    runs = [teacher, write_general_run(root / "general")]
    runs += [write_task_run(root / f"full-{seed}", teacher, seed=seed, score=0.86 + seed / 100) for seed in (0, 1)]
    runs.append(write_task_run(root / "open", teacher, "no-general", is_finished=False))
    return [str(path) for path in runs]


def test_the_command_writes_a_page_and_its_figures(folders: list[str], tmp_path: Path) -> None:
    output = tmp_path / "new" / "report.html"
    finished = run_command(
        "report",
        "--runs",
        *folders,
        "--output",
        str(output),
        "--alternations",
        "3",
        "--batch-sizes",
        "1",
        "4",
        "--dtypes",
        "fp32",
        "--threads",
        "1",
        program="trainer",
    )
    assert finished.returncode == 0, finished.stderr
    assert "unfinished" in finished.stderr
    assert "5 runs (1 unfinished)" in finished.stdout
    assert "accuracy 0.8650 on the dev rows (2 seeds), 96.1% of the teacher's score" in finished.stdout
    figures = json.loads(output.with_suffix(".json").read_text())
    (timing,) = figures["timings"]
    assert len(timing["runs"]) == 2
    assert (timing["length"], timing["threads"]) == (32, 1)
    assert [one["batch_size"] for one in timing["measurements"]] == [1, 4]
    for one in timing["measurements"]:
        assert one["width"] == one["real_pieces"] == 32
        assert one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
        assert one["student_texts_per_second"] == pytest.approx(1e3 * one["batch_size"] / one["student_milliseconds"])
        assert one["teacher_texts_per_second"] == pytest.approx(1e3 * one["batch_size"] / one["teacher_milliseconds"])
    page = output.read_text(encoding="utf-8")
    assert page.count("<section") == 3
    assert "random tokens, no padding" in page
    assert "86.5" in page


def test_real_texts_are_cut_and_padded_the_same_for_both(folders: list[str], tmp_path: Path) -> None:
    texts = tmp_path / "texts.tsv"
    texts.write_text("sentence\tlabel\n" + "a great movie\t1\nthe quick brown fox jumps over it\t0\n" * 10)
    options = {
        "runs": folders[2:3],
        "output": str(tmp_path / "r.html"),
        "alternations": 3,
        "batch_sizes": [2],
        "dtypes": ["fp32"],
        "data": str(texts),
        "task": "SST-2",
        "device": "cpu",
    }
    figures = report(ReportConfig.build(options)).summary
    (one,) = figures["timings"][0]["measurements"]
    assert one["real_pieces"] < one["width"] < 32
    assert figures["timings"][0]["inputs"] == f"texts of {texts}"


@pytest.mark.parametrize("kind", ["roberta", "deberta-v2", "distilbert", "electra"])
@pytest.mark.parametrize("columns", [(), ("sentence",), ("sentence", "other")])
def test_a_teacher_of_another_architecture_is_timed_with_its_own_tokenizer(
    tmp_path: Path, kind: str, columns: tuple[str, ...]
) -> None:
    save_classifier_of(kind, tmp_path / "teacher" / "model")
    run = write_task_run(tmp_path / "student", tmp_path / "teacher")
    texts = tmp_path / "texts.tsv"
    texts.write_text("sentence\tother\tlabel\n" + "a great movie\tit is not\t1\nthe quick brown fox\tno\t0\n" * 10)
    data = ["--data", str(texts), "--text-column", *columns] if columns else []
    few = ["--alternations", "3", "--batch-sizes", "2", "--dtypes", "fp32", "--device", "cpu"]
    code, said = run_in_process(["report", "--runs", str(run), *data, *few, "--output", str(tmp_path / "r.html")])
    assert code == 0, said
    (timing,) = json.loads((tmp_path / "r.json").read_text())["timings"]
    assert timing["measurements"][0]["ratio"] > 0
    assert timing["attention"] == ("eager and sdpa" if kind == "deberta-v2" else "sdpa")


def test_without_timing_no_model_is_loaded(folders: list[str], tmp_path: Path) -> None:
    code, said = run_in_process(["report", "--runs", *folders, "--output", str(tmp_path / "r.html"), "--no-timing"])
    assert code == 0, said
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["timings"] == []
    assert "not timed" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_bad_input_gives_one_line(folders: list[str], tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "r.html")]
    (tmp_path / "empty").mkdir()
    for arguments, code, message in (
        (["--runs", str(tmp_path / "none"), *output], 1, "no such folder"),
        (["--runs", str(tmp_path / "empty"), *output], 1, "it has no config.json"),
        (["--runs", folders[2], "--output", str(tmp_path / "r.pdf")], 2, "the report is an HTML file"),
        (
            ["--runs", folders[2], *output, "--data", str(tmp_path / "x.csv")],
            2,
            "name its text column with --text-column",
        ),
        (["--runs", folders[2], *output, "--device", "tpu"], 2, "--device"),
        (output, 2, "--runs is required"),
    ):
        failed = run_in_process(["report", *arguments])
        assert failed[0] == code, (arguments, failed)
        assert message in failed[1]
        assert failed[1].count("\n") == 1
        assert not (tmp_path / "r.html").exists()
