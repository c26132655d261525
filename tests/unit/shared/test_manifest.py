"""The manifest: its exact bytes, the check on resume, and a clear line for anything that is not a manifest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from augment_service.config import RunConfig
from shared.errors import ManifestError
from shared.manifest import (
    MANIFEST,
    JobConfig,
    Manifest,
    ShardPlan,
    batch_tokens_of,
    read_manifest,
    write_or_check,
)
from shared.params import AugmentParams
from shared.schema import samples_schema
from shared.storage.input_files import InputFile
from shared.storage.store import LocalStore
from tests.support.manifests import small_manifest

EXPECTED = Path(__file__).with_name("manifest_of_a_small_job.json")


ADDED: dict[str, Any] = {"case": "keep", "protect": [], "protect_words": [], "stop_words": ["<default>"]}
ADDED |= {"multi_label": [], "label_separator": ",", "missing_labels": "quarantine", "n_a_per_label": []}
ADDED |= {"n_a_unlabelled": None}
ADDED |= {"batch_tokens": None}
ADDED |= dict.fromkeys(("delimiter", "quoting", "escape", "encoding", "header"), "auto")
"""What version 0.1.0 did, in the options that its manifests do not have; and the default that is measured since."""


def manifest_of_a_small_job(**more: Any) -> Manifest:
    options = {"input": ["x.tsv"], "output": "out", "task": "SST-2", "k": 8, "p_t": 0.25, "seed": 7, "n_a": 20} | more
    config = RunConfig.build(options)
    schema = samples_schema(pa.int64(), [pa.field("größe", pa.string())])
    mlm = {"fingerprint": "cd" * 32, "device": "cpu", "arithmetic": 2, "hardware": "AVX512+avx512_bf16"}
    mlm |= {"dtype": "bfloat16", "torch": "2.13.0", "transformers": "5.1.0"}
    return Manifest(
        config=JobConfig(**config.identity() | {"input": ["data/träin.tsv"]}),
        inputs=(InputFile(path="data/träin.tsv", sha256="ab" * 32),),
        models={"mlm": mlm, "glove": {"fingerprint": "ef" * 32, "words": 400_000}},
        plan=ShardPlan.cut(1030, 512),
        schema=tuple(f"{one.name}: {one.type}" for one in schema),
    )


def test_the_bytes_of_a_manifest_never_change(tmp_path: Path) -> None:
    """EXPECTED was written by version 0.1.0: other bytes, beyond new options, would make every output unusable."""
    store = LocalStore(str(tmp_path))
    assert write_or_check(store, manifest_of_a_small_job(case="keep", protect=["none"]))
    expected = json.loads(EXPECTED.read_bytes())
    expected["config"] |= ADDED
    assert store.read(MANIFEST) == json.dumps(expected, indent=1, sort_keys=True, ensure_ascii=False).encode()


def test_reading_a_manifest_gives_what_was_written(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(MANIFEST, EXPECTED.read_bytes())
    manifest = read_manifest(store)
    assert manifest.to_bytes() == EXPECTED.read_bytes()
    assert (manifest.config.emit, manifest.config.task, manifest.config.params().k) == ("samples", "SST-2", 8)
    assert (manifest.plan.shards, manifest.plan.rows_of(0), manifest.plan.rows_of(2)) == (3, 512, 6)
    assert manifest.inputs[0].path == "data/träin.tsv"


def test_an_output_of_version_0_1_0_continues_only_with_what_that_version_did(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(MANIFEST, EXPECTED.read_bytes())
    params = read_manifest(store).config.params()
    assert (params.case, params.protect, params.protect_words) == ("keep", (), ())
    assert params == AugmentParams(k=8, p_t=0.25, seed=7, case="keep", protect=())
    with pytest.raises(ManifestError, match=r'config\.case was "keep", now "match"; config\.protect was \[\], now'):
        write_or_check(store, manifest_of_a_small_job())
    assert not write_or_check(store, manifest_of_a_small_job(case="keep", protect=["none"]))
    assert store.read(MANIFEST) == EXPECTED.read_bytes()


def _measured(manifest: Manifest, batch_tokens: int) -> Manifest:
    """The manifest as an actor with this measurement would have it."""
    return replace(manifest, models=manifest.models | {"mlm": manifest.models["mlm"] | {"batch_tokens": batch_tokens}})


def test_a_job_keeps_the_batches_that_its_first_actor_measured(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert write_or_check(store, _measured(manifest_of_a_small_job(), 16_384))
    content = store.read(MANIFEST)
    for same in (
        _measured(manifest_of_a_small_job(), 8192),
        _measured(manifest_of_a_small_job(batch_tokens=16_384), 16_384),
    ):
        assert not write_or_check(store, same, models_by_content=True)
        assert batch_tokens_of(read_manifest(store)) == 16_384
    with pytest.raises(ManifestError, match=r"config\.batch_tokens was 16384, now 8192"):
        write_or_check(store, _measured(manifest_of_a_small_job(batch_tokens=8192), 8192))
    assert store.read(MANIFEST) == content


def test_a_job_of_a_version_that_did_not_measure_goes_on(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put(MANIFEST, EXPECTED.read_bytes())
    assert not write_or_check(store, _measured(manifest_of_a_small_job(case="keep", protect=["none"]), 4096))
    assert batch_tokens_of(read_manifest(store)) == 1024


def test_a_manifest_without_the_size_of_batches_is_refused() -> None:
    with pytest.raises(ManifestError, match="number of tokens per model batch"):
        batch_tokens_of(manifest_of_a_small_job())


def test_another_job_is_rejected_and_the_difference_named(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert write_or_check(store, small_manifest(4, k=15))
    assert not write_or_check(store, small_manifest(4, k=15))
    with pytest.raises(ManifestError, match=r"config\.k was 15, now 10"):
        write_or_check(store, small_manifest(4, k=10))
    with pytest.raises(ManifestError, match=r"plan\.rows was 4, now 5; plan\.shards was 4, now 5\. Use another"):
        write_or_check(store, small_manifest(5, k=15))


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        (None, [], "format_version|object"),
        (None, "text", "object"),
        (None, {}, "format_version: Field required"),
        ("format_version", "1", "format_version: Input should be a valid integer"),
        ("format_version", 2, "format version 2, but this code reads version 1"),
        ("plan", None, "plan: "),
        ("plan", {"rows": 1, "shards": 1}, "plan.shard_rows: Field required"),
        ("plan", {"rows": "1", "shard_rows": 1, "shards": 1}, "plan.rows: Input should be a valid integer"),
        ("config", [], "config: "),
        ("config", {"emit": "samples", "task": None}, "config: n_a is missing"),
        ("schema", "text", "schema: "),
        ("inputs", [{"file": "x"}], "inputs.0.sha256: Field required"),
        ("models", [], "models: "),
        ("surprise", 1, "surprise: "),
    ],
)
def test_a_manifest_of_the_wrong_shape_gives_one_line(
    tmp_path: Path, section: str | None, value: Any, message: str
) -> None:
    content = json.loads(EXPECTED.read_bytes()) | {section: value} if section else value
    store = LocalStore(str(tmp_path))
    store.put(MANIFEST, json.dumps(content).encode())
    with pytest.raises(ManifestError, match=message) as caught:
        read_manifest(store)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_manifest_that_is_not_json_gives_one_line(tmp_path: Path, content: bytes) -> None:
    store = LocalStore(str(tmp_path))
    store.put(MANIFEST, content)
    with pytest.raises(ManifestError, match=r"manifest\.json was not written by `augment_service run`: Invalid JSON"):
        read_manifest(store)


def with_paths(manifest: Manifest, *, file: str, digest: str = "ab" * 32, **config: Any) -> Manifest:
    options = manifest.config.model_dump() | {"input": [file]} | config
    return replace(manifest, inputs=(InputFile(path=file, sha256=digest),), config=JobConfig(**options))


def test_a_job_is_the_same_wherever_its_files_lie(tmp_path: Path) -> None:
    store, job = LocalStore(str(tmp_path)), manifest_of_a_small_job()
    write_or_check(store, job)
    for file in ("/data/träin.tsv", "s3://bucket/other.tsv"):
        assert not write_or_check(store, with_paths(job, file=file))
    with pytest.raises(ManifestError, match="inputs was"):
        write_or_check(store, with_paths(job, file="/data/träin.tsv", digest="00" * 32))
    with pytest.raises(ManifestError, match="inputs was"):
        write_or_check(store, with_paths(job, file="/data/träin.csv"))


def test_models_are_the_same_by_content_once_they_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "copy").mkdir()
    store = LocalStore(str(tmp_path / "out"))
    file = "data/träin.tsv"
    write_or_check(store, with_paths(manifest_of_a_small_job(), file=file, mlm="model"))
    same = with_paths(manifest_of_a_small_job(), file=file, mlm=str(tmp_path / "model"))
    copy = with_paths(manifest_of_a_small_job(), file=file, mlm=str(tmp_path / "copy"))
    assert not write_or_check(store, same)
    assert not write_or_check(store, copy, models_by_content=True)
    with pytest.raises(ManifestError, match=r"config\.mlm was"):
        write_or_check(store, copy)
    other = replace(copy, models={"mlm": {"fingerprint": "00"}, "glove": {}})
    with pytest.raises(ManifestError, match=r"models\."):
        write_or_check(store, other, models_by_content=True)
