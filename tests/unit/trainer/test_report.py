"""The parts of the report that need no model: run folders, figures, charts and the page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import InputError, ManifestError, UsageError
from tests.support.runs import write_general_run, write_task_run, write_teacher_run
from trainer.report.config import ReportConfig
from trainer.report.figures import PageFacts
from trainer.report.measurements import Measurement, Timing
from trainer.report.model_folder import read_model_folder
from trainer.report.page import render_page
from trainer.report.plots import HEIGHT, WIDTH, DotRow, Series, _log_ticks, _ticks, dot_chart, line_chart
from trainer.report.runs import Run, read_run
from trainer.report.summary import retention, spread, summarise
from trainer.report.timing import alternate

FACTS = PageFacts(
    title="A & B <report>",
    created="2026-01-01 00:00 UTC",
    machine={"processor": "a <fast> one", "cores": 2, "torch": "2", "transformers": "5", "python": "3"},
)
FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    teacher = write_teacher_run(root / "teacher")
    return {
        "teacher": teacher,
        "general": write_general_run(root / "general"),
        "full-0": write_task_run(root / "full-0", teacher, score=0.86),
        "full-1": write_task_run(root / "full-1", teacher, seed=1, score=0.88),
        "no-general-0": write_task_run(root / "no-general-0", teacher, "no-general", score=0.84),
        "open": write_task_run(root / "open", teacher, seed=2, is_finished=False),
    }


@pytest.fixture(scope="module")
def runs(folders: dict[str, Path]) -> list[Run]:
    return [read_run(str(path)) for path in folders.values()]


def a_timing(run: Run) -> Timing:
    row = Measurement(
        dtype="fp32",
        batch_size=32,
        width=32.0,
        real_pieces=32.0,
        teacher_milliseconds=20.0,
        student_milliseconds=2.0,
        teacher_texts_per_second=1600.0,
        student_texts_per_second=16000.0,
        ratio=10.0,
        ratio_low=9.5,
        ratio_high=10.5,
        alternations=9,
    )
    return Timing(
        teacher="12 layers",
        student="4 layers",
        runs=[str(run.folder)],
        length=32,
        inputs="random tokens",
        device="cpu",
        threads=2,
        attention="sdpa",
        measurements=[row],
    )


def test_a_student_is_compared_with_its_own_teacher_and_seeds_are_pooled(runs: list[Run]) -> None:
    summary = summarise(runs, [], FACTS, 9)
    task = summary.tasks["SST-2"]
    full, other = task.variants
    assert (full.variant, full.seeds, other.variant) == ("full", [0, 1], "no-general")
    assert full.score.mean == pytest.approx(0.87)
    assert full.score.deviation == pytest.approx(0.02 / math.sqrt(2))
    assert full.retention is not None
    assert full.retention.mean == pytest.approx(0.87 / 0.9)
    assert other.score.deviation is None
    assert other.difference_from_full == pytest.approx(-0.03)
    assert [Path(folder).name for folder in task.unfinished] == ["open"]
    one = next(run for run in summary.runs if run.folder.endswith("full-0"))
    assert one.teacher is not None
    assert one.model is not None
    assert one.smaller is not None
    assert one.smaller == pytest.approx((one.teacher.parameters or 0) / (one.model.parameters or 1))
    assert one.smaller > 2


def test_the_json_file_holds_every_figure(runs: list[Run]) -> None:
    summary = summarise(runs, [a_timing(runs[2])], FACTS, 9)
    figures = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert figures["format"] == "distillation-report-1"
    assert figures["tasks"]["SST-2"]["variants"][0]["score"]["mean"] == pytest.approx(0.87)
    assert figures["runs"][2]["model"]["shape"]["layers"] == 2
    assert figures["runs"][2]["timing"] == 0
    assert figures["timings"][0]["measurements"][0]["ratio"] == 10.0


def test_students_of_other_sizes_are_never_seeds_of_one_variant(folders: dict[str, Path], tmp_path: Path) -> None:
    wide = write_task_run(tmp_path / "wide", folders["teacher"], seed=1, hidden=48)
    summary = summarise([read_run(str(folders["full-0"])), read_run(str(wide))], [], FACTS, 9)
    variants = summary.tasks["SST-2"].variants
    assert [one.seeds for one in variants] == [[0], [1]]
    assert len({one.variant for one in variants}) == 2


def test_parameters_are_counted_as_pytorch_counts_them(folders: dict[str, Path]) -> None:
    import transformers

    folder = folders["full-0"] / "model"
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    facts = read_model_folder(folder)
    assert facts.parameters == sum(weight.numel() for weight in model.parameters())
    assert facts.weight_bytes == (folder / "model.safetensors").stat().st_size


def test_an_unfinished_run_is_shown_as_such_with_the_scores_so_far(runs: list[Run]) -> None:
    run = runs[-1]
    assert not run.is_finished
    assert run.last_dev == run.history.dev[-1].values
    assert any("unfinished" in note for note in run.notes)


def test_a_missing_teacher_leaves_a_note(folders: dict[str, Path], tmp_path: Path) -> None:
    run = read_run(str(write_task_run(tmp_path / "run", tmp_path / "nowhere")))
    assert run.teacher is None
    assert any("no longer exists" in note for note in run.notes)
    assert retention(run, "dev") == {"accuracy": pytest.approx(0.86 / 0.9)}


def test_a_half_written_last_line_is_left_out(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = write_task_run(tmp_path / "run", folders["teacher"], is_finished=False)
    before = len(read_run(str(folder)).history.losses)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "predic')
    assert len(read_run(str(folder)).history.losses) == before


def _spoil_metrics(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    path.write_text("nonsense\n" + path.read_text())


def _spoil_dev_scores(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    path.write_text('{"stage": "prediction", "samples": 32, "dev": 0.5}\n' + path.read_text())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "not a run of the trainer"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: not valid JSON"),
        (lambda folder: (folder / "config.json").write_text('{"command": "mlm"}'), "not from trainer teacher"),
        (lambda folder: (folder / "result.json").write_text("[1]"), r"result\.json should hold a JSON object"),
        (lambda folder: (folder / "result.json").write_text('{"command": "task", "dev": 3}'), r"result\.json: dev: "),
        (_spoil_metrics, r"metrics\.jsonl line 1"),
        (_spoil_dev_scores, r"metrics\.jsonl line 1: dev should be an object of metrics"),
        (lambda folder: (folder / "model/model.safetensors").write_bytes(b"\xff" * 100), "is not a safetensors file"),
    ],
)
def test_a_bad_folder_is_named(
    folders: dict[str, Path], tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    folder = write_task_run(tmp_path / "run", folders["teacher"])
    spoil(folder)
    with pytest.raises((InputError, ManifestError), match=message) as caught:
        read_run(str(folder))
    assert str(folder) in str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_run(str(tmp_path / "none"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_sizes": [0]}, "--batch-sizes must be 1 or more"),
        ({"alternations": 2}, "--alternations"),
        ({"dtypes": ["fp8"]}, "--dtypes"),
        ({"task": "SST-2"}, "pass a file with --data"),
        ({"runs": []}, "--runs"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ReportConfig.build({"runs": ["x"], "output": "y.html"} | options)


def test_the_contender_that_starts_changes_with_every_alternation() -> None:
    taken: list[str] = []
    # Slow enough that no turn is repeated.
    import time

    def turn(name: str) -> Callable[[], None]:
        def run() -> None:
            taken.append(name)
            time.sleep(0.11)

        return run

    seconds = alternate([turn("a"), turn("b")], 3, 2)
    assert "".join(taken) == "aabb" + "ab" + "ba" + "ab"
    assert [len(one) for one in seconds] == [3, 3]
    assert all(0.05 < value < 1.0 for one in seconds for value in one)


@given(st.lists(FINITE, min_size=1, max_size=20))
def test_a_mean_is_between_the_least_and_the_greatest(values: list[float]) -> None:
    one = spread(values)
    slack = 1e-6 * (1 + max(abs(value) for value in values))
    assert one.least - slack <= one.mean <= one.greatest + slack
    assert (one.deviation is None) == (len(values) == 1)


@given(FINITE, FINITE)
def test_ticks_enclose_the_values(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    ticks, (first, last) = _ticks(low, high, 5)
    slack = 1e-6 * (abs(low) + abs(high) + 1)
    assert first <= low + slack
    assert last >= high - slack
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(ticks)


@given(st.floats(1e-6, 1e6), st.floats(1.0, 1e6))
def test_logarithmic_ticks_enclose_the_values(low: float, factor: float) -> None:
    ticks, (first, last) = _log_ticks(low, low * factor)
    assert first <= low
    assert last >= low * factor
    assert ticks


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 1e9), st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])), max_size=30
        ),
        max_size=4,
    ),
    st.none() | st.floats(-1e6, 1e6),
)
@example([[(0.0, 5e-324), (0.0, 1.0)]], None)
def test_every_point_of_a_chart_is_inside_it(lines: list[list[tuple[float, float]]], reference: float | None) -> None:
    series = [Series(f"line {number}", sorted(points), number, True) for number, points in enumerate(lines)]
    chart = line_chart(
        series,
        x_label="x",
        y_label="y",
        description="a chart",
        reference=("teacher", reference) if reference is not None else None,
    )
    has_points = any(math.isfinite(y) for points in lines for _, y in points)
    assert bool(chart) == has_points
    for text in re.findall(r'points="([^"]*)"', chart):
        for place in text.split():
            x, y = (float(part) for part in place.split(","))
            assert 0 <= x <= WIDTH
            assert 0 <= y <= HEIGHT


def test_a_dot_chart_places_better_scores_further_right() -> None:
    rows = [
        DotRow(label="worse", values=[0.5, 0.6], mean=0.55, deviation=0.07, colour=0),
        DotRow(label="better", values=[0.9], mean=0.9, deviation=None, colour=1),
    ]
    chart = dot_chart(rows, x_label="x", description="a chart", reference=("teacher", 1.0))
    places = [float(place) for place in re.findall(r'<circle[^>]*cx="([\d.]+)"', chart)]
    assert len(places) == 3
    assert places == sorted(places)
    assert max(places) < float(re.findall(r'class="reference" x1="([\d.]+)"', chart)[0])


class _Page(HTMLParser):
    """Checks that elements are closed in order, and collects tags and text."""

    VOID = ("meta", "br", "img", "hr", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)


def parse(html: str) -> _Page:
    parser = _Page()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.fixture(scope="module")
def page(runs: list[Run]) -> _Page:
    named = [run for run in runs if run.command == "task" and run.is_finished]
    return parse(render_page(runs, summarise(runs, [a_timing(named[0])], FACTS, 9), "report.json"))


def test_the_page_loads_nothing_from_elsewhere(page: _Page) -> None:
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe"}
    style = "".join(page.said)
    assert "url(" not in style
    assert "@import" not in style
    for _, attributes in page.tags:
        assert (attributes.get("href") or "#").startswith("#")
        assert "src" not in attributes


def test_links_of_the_page_lead_to_its_sections(page: _Page) -> None:
    ids = {attributes.get("id") for _, attributes in page.tags}
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert len(links) >= 3
    assert {(link or "")[1:] for link in links} <= ids


def test_tables_and_charts_have_captions_and_labels_for_screen_readers(page: _Page) -> None:
    count = {name: sum(tag == name for tag, _ in page.tags) for name in ("table", "caption", "svg")}
    assert count["table"] == count["caption"] >= 4
    assert count["svg"] >= 5
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_names_given_by_users_are_shown_as_text(page: _Page) -> None:
    said = " ".join(page.said)
    assert "A & B <report>" in said
    assert "a <fast> one" in said
    assert "10.0×" in said
    assert "87.0" in said


HOSTILE = (
    "<script>alert(1)</script>",
    """quotes " ' ` = onload=x""",
    "{{7*7}} {% raw %} {# x #}",
    "</title></style></svg><img src=x>",
    "&lt;b&gt; & \u2028 ]]>",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_as_they_are_and_change_nothing_else(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    def rendered(name: str, folder: Path) -> _Page:
        first = write_task_run(folder / "a", folders["teacher"], name=name, task=name)
        second = write_task_run(folder / "b", folders["teacher"], name=name, task=name, ablation=name, score=0.8)
        unfinished = write_task_run(folder / "c", folder / name.replace("/", "-"), name=name, is_finished=False)
        runs = [read_run(str(path)) for path in (first, second, unfinished)]
        facts = replace(FACTS, title=name, machine=dict(FACTS.machine) | {"processor": name})
        return parse(render_page(runs, summarise(runs, [a_timing(runs[0])], facts, 9), f"{name}.json"))

    hostile, plain = rendered(name, tmp_path / "hostile"), rendered("plain", tmp_path / "plain")
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    for (_, own), (_, expected) in zip(hostile.tags, plain.tags, strict=True):
        assert own.keys() == expected.keys()
    text = "".join(hostile.said)
    # Heading, navigation, section, tables, charts' titles, machine and file name.
    assert text.count(name) >= 8
