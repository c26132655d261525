"""A job deletes only files that a job writes: foreign files in, next to and around an output stay untouched."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from augment_service.job.heartbeat import Heartbeat, new_run_name, remove_dead
from shared.output_names import FOLDERS, is_own, partial_name, writer_of_partial
from shared.shard_checks import remove_orphans
from shared.storage.store import LocalStore
from shared.verify import verify_output
from tests.support.shards import filled

FOREIGN_NAMES = st.one_of(
    st.sampled_from(
        [
            "photos.tar",
            "00000.arrow",
            "00000-0123456789abcdef.arrow.bak",
            "00000-0123456789abcdeg.arrow",
            "٠٠٠٠٠-0123456789abcdef.arrow",
            "events.out.tfevents.1",
            "20260101T000000.json",
            "notes.partial-mine-1",
            "00000.json.partial-",
            "x.partial-none-" + "0" * 32,
            ".DS_Store",
        ]
    ),
    st.text(st.characters(codec="ascii", categories=["L", "N"], include_characters="-_. "), min_size=1, max_size=30),
).filter(lambda name: name.strip(". ") != "")
PLACES = st.sampled_from(["", *(f"{folder}/" for folder in FOLDERS), "shards/deeper/", "../next/shards/", "../next-2/"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(foreign=st.sets(st.tuples(PLACES, FOREIGN_NAMES), max_size=8), content=st.binary(max_size=20))
def test_foreign_files_survive_the_end_of_a_run(tmp_path: Path, foreign: set[tuple[str, str]], content: bytes) -> None:
    output = tmp_path / uuid.uuid4().hex / "out"
    store = filled(output)
    run = new_run_name()
    Heartbeat(run).write(store)
    files = []
    for place, name in foreign:
        path = output / place / name
        if is_own(f"{place}{name}") or writer_of_partial(f"{place}{name}") is not None or path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        files.append(path)
    remove_orphans(store, remove_dead(store, run, time.time() + 1e6), older_than_seconds=-1.0)
    assert [path.read_bytes() for path in files] == [content] * len(files)
    # The run's own heartbeat is gone, and nothing of the output was lost.
    assert not (output / "runs" / f"{run}.json").exists()
    assert [fault for fault in verify_output(store).faults if "belongs to no commit" not in fault] == []


def test_the_names_that_a_job_writes_are_its_own(tmp_path: Path) -> None:
    store = filled(tmp_path)
    run = new_run_name()
    Heartbeat(run).write(store)
    written = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) >= 9
    assert [name for name in written if not is_own(name)] == []
    for name in written:
        for writer in ("none", run):
            assert writer_of_partial(partial_name(name, writer, uuid.uuid4().hex)) == writer


def test_half_written_files_at_the_top_of_an_output_are_removed(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    name = partial_name("manifest.json", new_run_name(), uuid.uuid4().hex)
    (tmp_path / name).write_bytes(b"half")
    (tmp_path / "mine.json.partial-1").write_bytes(b"mine")
    assert store.remove_partials(frozenset(), 3600.0) == 1
    assert store.entries() == ["mine.json.partial-1"]
