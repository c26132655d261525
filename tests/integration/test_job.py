"""The job on a real local Ray, through the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shared.shards import commit_name, list_commits, read_commit, read_shard
from shared.storage.store import open_store
from tests.integration.conftest import NUM_ROWS, Job
from tests.support.command import bytes_of, kill_when, run_command
from trainer.data.augmented import open_augmented, sampled


def rows_of(output: Path) -> list[dict[str, Any]]:
    store = open_store(str(output))
    rows: list[dict[str, Any]] = pa.concat_tables(
        [read_shard(store, commit) for commit in list_commits(store)]
    ).to_pylist()
    return rows


def test_a_finished_run_is_complete_and_reports_its_totals(finished_run: Path) -> None:
    status = json.loads(run_command("status", str(finished_run), "--json").stdout)
    assert status["complete"]
    assert (status["rows"], status["quarantined"], status["shards"]) == (NUM_ROWS - 1, 1, NUM_ROWS // 8)
    assert status["samples"] > 4 * NUM_ROWS
    assert run_command("verify", str(finished_run)).returncode == 0
    (quarantined,) = (finished_run / "quarantine").iterdir()
    record = json.loads(quarantined.read_text(encoding="utf-8"))
    assert (record["position"], record["reason"]) == (17, "1 columns, 3 expected")
    assert record["where"].endswith("corpus.tsv line 19")


def test_rows_have_their_label_other_columns_and_replaced_spans(finished_run: Path) -> None:
    rows = rows_of(finished_run)
    assert [row["source_id"] for row in rows] == sorted(row["source_id"] for row in rows)
    for row in rows:
        assert (row["label"], row["note"]) == (row["source_id"] % 2, f"kept {row['source_id']}")
        assert (row["n"] == 0) == (row["replaced"] == [])
        for one in row["replaced"]:
            assert row["text_a"][one["start"] : one["end"]] == one["candidate"]
    origins = {one["origin"] for row in rows for one in row["replaced"]}
    assert origins == {"mlm", "glove"}


def test_three_actors_write_the_same_bytes_as_one(job: Job, finished_run: Path, tmp_path: Path) -> None:
    finished = run_command(*job.arguments(tmp_path / "out", "--mlm-actors", "3"))
    assert finished.returncode == 0, finished.stderr
    assert bytes_of(tmp_path / "out") == bytes_of(finished_run)


def test_workers_that_feed_the_model_change_no_byte(job: Job, finished_run: Path, tmp_path: Path) -> None:
    finished = run_command(*job.arguments(tmp_path / "out", "--mlm-actors", "1", "--workers-per-gpu", "2"))
    assert finished.returncode == 0, finished.stderr
    assert bytes_of(tmp_path / "out") == bytes_of(finished_run)


def test_a_run_that_is_killed_and_resumed_writes_the_same_bytes(job: Job, finished_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    commits = output / "commits"
    status = kill_when(
        lambda: commits.is_dir() and len(list(commits.glob("*.json"))) >= 5,
        *job.arguments(output, "--mlm-actors", "1"),
    )
    assert status == -9
    done = len(list(commits.glob("*.json")))
    assert 5 <= done < NUM_ROWS // 8
    assert not (output / "_SUCCESS").exists()
    assert run_command("verify", str(output)).returncode == 1
    assert run_command("export", str(output), "--format", "tsv", "--output", str(tmp_path / "x.tsv")).returncode == 1
    finished = run_command(*job.arguments(output, "--mlm-actors", "2"))
    assert finished.returncode == 0, finished.stderr
    assert f"committed={done}" in finished.stderr
    assert bytes_of(output) == bytes_of(finished_run)


def test_a_finished_run_is_not_repeated_and_another_job_is_rejected(job: Job, finished_run: Path) -> None:
    before = bytes_of(finished_run)
    assert run_command(*job.arguments(finished_run)).returncode == 0
    for more, message in (
        (["--k", "9"], "config.k was 8, now 9"),
        (["--no-resume"], "already contains a run"),
    ):
        refused = run_command(*job.arguments(finished_run, *more))
        assert refused.returncode == 1
        assert message in refused.stderr
        assert "Traceback" not in refused.stderr
    assert bytes_of(finished_run) == before


def test_verify_finds_a_single_changed_bit(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_run, copy)
    shard = sorted((copy / "shards").iterdir())[3]
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 4
    shard.write_bytes(bytes(content))
    found = run_command("verify", str(copy))
    assert found.returncode == 1
    assert found.stdout.splitlines() == [line for line in found.stdout.splitlines() if shard.name in line]


@pytest.mark.parametrize("form", ["tsv", "jsonl", "parquet"])
def test_an_export_contains_every_row(finished_run: Path, tmp_path: Path, form: str) -> None:
    target = tmp_path / f"all.{form}"
    finished = run_command("export", str(finished_run), "--format", form, "--output", str(target), "--json")
    assert finished.returncode == 0, finished.stderr
    expected = rows_of(finished_run)
    assert json.loads(finished.stdout)["rows"] == len(expected)
    if form == "jsonl":
        lines = target.read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == expected
    elif form == "parquet":
        import pyarrow.parquet as pq

        assert [row["text_a"] for row in pq.read_table(target).to_pylist()] == [row["text_a"] for row in expected]
    else:
        header, *lines = target.read_text(encoding="utf-8").splitlines()
        assert header.split("\t") == ["source_id", "n", "text_a", "text_b", "label", "note"]
        assert [line.split("\t")[2] for line in lines] == [row["text_a"] for row in expected]


def test_the_datasets_library_reads_the_shards_directly(finished_run: Path, tmp_path: Path) -> None:
    import datasets

    loaded = datasets.load_dataset(
        "arrow", data_files=str(finished_run / "shards" / "*.arrow"), cache_dir=str(tmp_path), split="train"
    )
    assert loaded["text_a"] == [row["text_a"] for row in rows_of(finished_run)]


def read_like_the_reference(path: Path) -> list[list[str]]:
    """`_read_tsv` of the reference's data processors, with the quotechar=None that they pass."""
    with path.open("r", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t", quotechar=None))


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize(("name", "text_a", "text_b", "label"), [("MRPC", 3, 4, 0), ("CoLA", 3, None, 1)])
def test_the_reference_reads_the_export_of_a_glue_task(
    data_dir: Path, job: Job, tmp_path: Path, name: str, text_a: int, text_b: int | None, label: int
) -> None:
    source = data_dir / "glue" / name / "train.tsv"
    arguments = [one if one != job.common[2] else str(source) for one in job.common if one not in ("sentence", "label")]
    arguments = [one for one in arguments if one not in ("--text-column", "--label-column")]
    output = tmp_path / "out"
    finished = run_command(*arguments, "--task", name, "--limit", "20", "--output", str(output))
    assert finished.returncode == 0, finished.stderr
    target = tmp_path / "train_aug.tsv"
    exported = run_command("export", str(output), "--format", "reference-tsv", "--output", str(target))
    assert exported.returncode == 0, exported.stderr
    lines, original = read_like_the_reference(target), read_like_the_reference(source)
    if name != "CoLA":
        # The reference skips the first line for every task except CoLA.
        assert [one.lstrip("\ufeff") for one in original.pop(0)] == lines.pop(0)
    expected = rows_of(output)
    assert len(lines) == len(expected)
    for line, row in zip(lines, expected, strict=True):
        assert len(line) == len(original[0])
        assert (line[text_a], line[label]) == (row["text_a"], str(row["label"]))
        assert text_b is None or line[text_b] == row["text_b"]
        if row["n"] == 0:
            assert line == original[int(str(row["source_id"]))]


@pytest.mark.slow
def test_labels_with_their_own_n_a_have_so_many_samples_in_samples_and_in_candidates(
    job: Job, finished_run: Path, tmp_path: Path
) -> None:
    more = ["--n-a-per-label", "1=9", "--limit", "40", "--mlm-actors", "1"]
    found = {}
    for emit in ("samples", "candidates"):
        finished = run_command(*job.arguments(tmp_path / emit, *more, "--emit", emit))
        assert finished.returncode == 0, finished.stderr
        augmented = open_augmented(str(tmp_path / emit), 0.0)
        store = open_store(augmented.uri)
        tables = [sampled(read_shard(store, read_commit(store, commit_name(n))), augmented, None, 0) for n in range(5)]
        found[emit] = pa.concat_tables([one.select(["source_id", "n", "text_a", "label"]) for one in tables])
    assert found["samples"].equals(found["candidates"])
    rows = found["samples"].to_pylist()
    assert {(row["label"], row["n"]) for row in rows} == {(0, n) for n in range(7)} | {(1, n) for n in range(10)}
    store = open_store(str(finished_run))
    plain = [row for n in range(5) for row in read_shard(store, read_commit(store, commit_name(n))).to_pylist()]
    kept = [row for row in rows if row["n"] <= 6]
    assert [(row["source_id"], row["n"], row["text_a"]) for row in kept] == [
        (row["source_id"], row["n"], row["text_a"]) for row in plain
    ]


def test_a_label_that_no_row_has_gets_no_n_a(job: Job, tmp_path: Path) -> None:
    finished = run_command(*job.arguments(tmp_path / "out", "--n-a-per-label", "positive=9"))
    assert finished.returncode == 1
    assert finished.stderr.strip().splitlines()[-1].endswith("--input has no label 'positive'; its labels are 0, 1")
