"""`verify` finds every single fault: any file of a complete output, damaged in any way, gives a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shared.shard_checks import check_complete
from shared.shards import list_commits, write_shard
from shared.storage.store import LocalStore
from shared.success import write_success
from shared.totals import total
from shared.verify import verify_output
from tests.support.shards import filled, table_of

NUM_SHARDS, ROWS_IN_QUARANTINE = 3, 2


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete output with quarantined rows in two of its shards."""
    folder = tmp_path_factory.mktemp("complete") / "out"
    store = filled(folder, NUM_SHARDS, quarantined=ROWS_IN_QUARANTINE)
    assert verify_output(store).faults == []
    check_complete(store, rows=NUM_SHARDS + ROWS_IN_QUARANTINE, shards=NUM_SHARDS)
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def edit_value(content: bytes, pick: int) -> bytes:
    """One number or string of a JSON document changed, its form kept."""
    document = json.loads(content)
    places = [(document, key) for key, value in document.items() if isinstance(value, (int, float, str))]
    places += [
        (inner, key)
        for inner in document.values()
        if isinstance(inner, dict)
        for key, value in inner.items()
        if isinstance(value, (int, float, str))
    ]
    inside, key = places[pick % len(places)]
    inside[key] = inside[key] + 1 if isinstance(inside[key], (int, float)) else inside[key] + "x"
    indent = 1 if b"\n" in content else None
    return json.dumps(document, sort_keys=True, indent=indent, ensure_ascii=False).encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(
    pick=st.integers(0, 10**6),
    other=st.integers(0, 10**6),
    at=st.integers(0, 10**9),
    bit=st.integers(0, 7),
    damage=st.sampled_from(["flip", "cut", "empty", "append", "delete", "swap", "copy", "edit", "array", "null"]),
)
def test_any_single_damage_is_found(
    complete: Path, tmp_path: Path, pick: int, other: int, at: int, bit: int, damage: str
) -> None:
    folder = tmp_path / "out"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(complete, folder)
    files = files_of(folder)
    path = files[pick % len(files)]
    content = path.read_bytes()
    if damage == "flip":
        changed = bytearray(content)
        changed[at % len(changed)] ^= 1 << bit
        path.write_bytes(changed)
    elif damage == "cut":
        path.write_bytes(content[: at % len(content)])
    elif damage in ("empty", "array", "null"):
        path.write_bytes({"empty": b"", "array": b"[]", "null": b"null"}[damage])
    elif damage == "append":
        path.write_bytes(content + b"\n")
    elif damage == "delete":
        path.unlink()
    elif damage == "copy":
        shutil.copy(path, path.with_name(f"copy-of-{path.name}"))
        assume(path.parent != folder)
    elif damage == "swap":
        siblings = [one for one in files if one.parent == path.parent and one.read_bytes() != content]
        assume(siblings)
        sibling = siblings[other % len(siblings)]
        path.write_bytes(sibling.read_bytes())
        sibling.write_bytes(content)
    else:
        assume(path.suffix == ".json" or path.name == "_SUCCESS")
        path.write_bytes(edit_value(content, at))
    found = verify_output(LocalStore(str(folder)))
    assert found.faults, f"{damage} of {path.name} was not found"
    assert all("\n" not in fault for fault in found.faults)


def test_all_faults_are_listed_in_one_run(complete: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(complete, folder)
    (folder / "manifest.json").write_text("[]")
    (folder / "commits" / "00000.json").write_text("{")
    next((folder / "shards").glob("00001-*")).unlink()
    (folder / "shards" / "photos.tar").write_bytes(b"mine")
    faults = "\n".join(verify_output(LocalStore(str(folder))).faults)
    for part in ("manifest.json", "commits/00000.json is not a valid", "is committed but missing", "photos.tar"):
        assert part in faults


def test_an_output_of_version_0_1_0_has_no_faults(complete: Path, tmp_path: Path) -> None:
    """Records without the checksums that were added later."""
    folder = tmp_path / "out"
    shutil.copytree(complete, folder)
    for path in [*(folder / "commits").iterdir(), folder / "_SUCCESS"]:
        record = json.loads(path.read_text())
        for name in ("quarantine_sha256", "manifest_sha256", "commits_sha256"):
            record.pop(name, None)
        path.write_text(json.dumps(record, sort_keys=True, indent=1 if path.name == "_SUCCESS" else None))
    store = LocalStore(str(folder))
    assert verify_output(store).faults == []
    write_shard(store, 0, table_of("word0", 0), 1, [{"position": 0}], {"samples": 3})
    write_success(store, total(list_commits(store)))
    assert verify_output(store).faults == []
