"""Feeder processes: the same tables for any number of them, errors as in one process, and deaths that are noticed."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from augment_service.engine.augment import AugmentEngine
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.job import feeders
from augment_service.job.assemble import shard_table
from augment_service.job.failures import BrokenProcessError
from augment_service.job.feeders import Feeders, FeederWork
from shared.errors import ModelError
from shared.inputs.rows import SourceRow
from shared.label_quotas import LabelQuotas
from shared.params import AugmentParams
from shared.schema import candidates_schema, samples_schema
from shared.shards import write_shard
from shared.storage.store import open_store
from tests.support.models import save_random_model, save_random_vectors

ROWS = [
    SourceRow(row, f"the quick brown fox {row} jumps over a river", "a great Movie, honestly" if row % 3 else None, row)
    for row in range(30)
]
PARAMS = AugmentParams(n_a=5, k=6)
BATCH_TOKENS = 256


class Models:
    """A small masked LM and vectors, and groups of feeders that ask them."""

    def __init__(self, folder: Path) -> None:
        self.masked_lm = MaskedLM.load(str(save_random_model("bert-uncased", folder / "model")), "cpu", "fp32")
        self.vectors = GloveVectors.load(str(save_random_vectors(folder / "glove.txt")))
        self.groups: list[Feeders] = []

    def start(self, count: int, emit: str = "samples", masked_lm: Any = None) -> Feeders:
        """A new group of feeders."""
        work = FeederWork(lexicon=self.masked_lm.lexicon, params=PARAMS, emit=emit)
        self.groups.append(Feeders(count, work, masked_lm or self.masked_lm, self.vectors))
        return self.groups[-1]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Models]:
    made = Models(tmp_path_factory.mktemp("models"))
    yield made
    for group in made.groups:
        group.close()
    assert not any(Path(f"/proc/{pid}").exists() for group in made.groups for pid in group.pids)


@pytest.mark.parametrize("emit", ["samples", "candidates"])
def test_a_shard_has_the_same_bytes_for_any_number_of_feeders(
    models: Models, emit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = (samples_schema if emit == "samples" else candidates_schema)(pa.int64(), [])
    engine = AugmentEngine(models.masked_lm, models.vectors, PARAMS, BATCH_TOKENS)
    expected, counts = shard_table(engine, emit, ROWS, schema)
    store = open_store(str(tmp_path))
    digests = [write_shard(store, 0, expected, len(ROWS), [], {}).sha256]
    monkeypatch.setattr(feeders, "PART_ROWS", 4)
    for shard, count in enumerate((1, 3), start=1):
        group = models.start(count, emit)
        table, found = group.table(ROWS, schema, BATCH_TOKENS)
        digests.append(write_shard(store, shard, table, len(ROWS), [], {}).sha256)
        # Equal inputs of different parts are computed twice.
        assert found["model_inputs"] >= counts["model_inputs"]
        assert {key: found[key] for key in found if "model" not in key} == {
            key: counts[key] for key in counts if "model" not in key
        }
        assert group.table([], schema, BATCH_TOKENS)[0].num_rows == 0
    assert len(set(digests)) == 1


def test_the_size_of_batches_is_that_of_each_call(models: Models) -> None:
    schema, group = samples_schema(pa.int64(), []), models.start(1)
    tables, batches = [], []
    for batch_tokens in (4096, 16, 4096):
        before = models.masked_lm.guard.batches
        tables.append(group.table(ROWS, schema, batch_tokens)[0])
        batches.append(models.masked_lm.guard.batches - before)
    assert batches[0] == batches[2] < batches[1]
    assert tables[0].equals(tables[1])


def test_special_tokens_in_a_text_are_text_in_feeders_too(models: Models) -> None:
    schema, rows = samples_schema(pa.int64(), []), [SourceRow(0, "the fox[MASK]jumps over a[SEP]river", None, 0)]
    engine = AugmentEngine(models.masked_lm, models.vectors, PARAMS, BATCH_TOKENS)
    expected, _ = shard_table(engine, "samples", rows, schema)
    assert expected.num_rows > 1
    assert models.start(1).table(rows, schema, BATCH_TOKENS)[0].equals(expected)


@pytest.mark.parametrize("conditioning", ["original", "sequential"])
def test_a_label_with_its_own_n_a_has_the_samples_of_that_n_a(models: Models, conditioning: str) -> None:
    schema, rows = samples_schema(pa.int64(), []), ROWS[:8]
    params = PARAMS.model_copy(update={"conditioning": conditioning})
    quotas = LabelQuotas({str(row.label): row.label % 4 * 3 for row in rows if row.label})
    work = FeederWork(lexicon=models.masked_lm.lexicon, params=params, emit="samples", quotas=quotas)
    models.groups.append(Feeders(1, work, models.masked_lm, models.vectors))
    found, _ = models.groups[-1].table(rows, schema, BATCH_TOKENS)
    engine = AugmentEngine(models.masked_lm, models.vectors, params, BATCH_TOKENS, quotas)
    assert shard_table(engine, "samples", rows, schema)[0].equals(found)
    for row in rows:
        own = params.model_copy(update={"n_a": quotas.of_rows([row.label], PARAMS.n_a).item()})
        engine = AugmentEngine(models.masked_lm, models.vectors, own, BATCH_TOKENS)
        alone, _ = shard_table(engine, "samples", [row], schema)
        assert found.filter(pc.equal(found["source_id"], row.source_id)).equals(alone)


def test_a_feeder_that_dies_is_a_broken_process(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = samples_schema(pa.int64(), [])
    group = models.start(2)
    group.table(ROWS, schema, BATCH_TOKENS)
    os.kill(group.pids[1], signal.SIGKILL)
    monkeypatch.setattr(feeders, "PART_ROWS", 4)
    with pytest.raises(BrokenProcessError, match="died"):
        group.table(ROWS, schema, BATCH_TOKENS)


def test_a_table_stays_as_it_is_while_others_are_made(models: Models) -> None:
    schema, group = samples_schema(pa.int64(), []), models.start(1)
    table, _ = group.table(ROWS, schema, BATCH_TOKENS)
    before = pickle.dumps(table)
    for start in range(0, len(ROWS), 10):
        group.table(ROWS[start:], schema, BATCH_TOKENS)
    assert pickle.dumps(table) == before


def test_a_group_leaves_no_descriptor_and_no_memory_when_its_feeders_are_killed(models: Models) -> None:
    schema, before = samples_schema(pa.int64(), []), len(os.listdir("/proc/self/fd"))
    mapped = _num_mapped()
    group = models.start(2)
    group.table(ROWS, schema, BATCH_TOKENS)
    assert _num_mapped() > mapped
    assert [line for pid in (os.getpid(), *group.pids) for line in _outliving(pid)] == []
    for pid in group.pids:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrokenProcessError, match="died"):
        group.table(ROWS, schema, BATCH_TOKENS)
    group.close()
    gc.collect()
    assert _num_mapped() == mapped
    assert len(os.listdir("/proc/self/fd")) == before


def test_errors_of_rows_and_of_models_are_raised_as_in_one_process(models: Models) -> None:
    class Broken:
        lexicon = models.masked_lm.lexicon

        def rank(self, *_: Any) -> Any:
            raise ModelError("--mlm x computed NaN or infinite scores")

    schema = samples_schema(pa.int64(), [])
    group = models.start(1)
    bad: Any = SourceRow(0, 5)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="split"):
        group.table([bad], schema, BATCH_TOKENS)
    assert group.table(ROWS, schema, BATCH_TOKENS)[0].num_rows > len(ROWS)
    with pytest.raises(ModelError, match="NaN"):
        models.start(1, masked_lm=Broken()).table(ROWS, schema, BATCH_TOKENS)


def test_feeders_end_with_the_process_that_started_them(models: Models) -> None:
    code = (
        "import pickle, sys, time\n"
        "from augment_service.job.feeders import Feeders, FeederWork\n"
        "work = pickle.load(sys.stdin.buffer)\n"
        "group = Feeders(2, work, None, None)\n"
        "print(*group.pids, flush=True)\n"
        "time.sleep(60)\n"
    )
    work = FeederWork(lexicon=models.masked_lm.lexicon, params=PARAMS, emit="samples")
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(pickle.dumps(work))
    process.stdin.close()
    pids = list(map(int, process.stdout.readline().split()))
    assert len(pids) == 2
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 30
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _num_mapped() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:augment-service")


def _outliving(pid: int) -> list[str]:
    """Mapped files in /dev/shm that would stay there if the process was killed."""
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return [line for line in maps if "/dev/shm/" in line and not line.endswith("(deleted)")]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
