"""Tokenized shards on disk: read back exactly, made once however many ask, never trusted when damaged, bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.command import ROOT
from trainer.data.batches import Pieces, Tokenized, to_offsets
from trainer.data.token_cache import TokenCache, read_entry, write_entry

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=5), max_size=6)


def entry_of(rows: list[list[int]], has_pairs: bool = False, width: int = 0) -> Tokenized:
    ids = np.asarray([one for row in rows for one in row], np.int32)
    return Tokenized(
        pieces=Pieces(ids, (ids % 2 * has_pairs).astype(np.uint8), to_offsets([len(row) for row in rows])),
        labels=np.asarray([float("nan"), *range(len(rows))][: len(rows)], np.float32),
        keys=np.arange(2 * len(rows), dtype=np.int64).reshape(-1, 2) * 2**40,
        logits=np.arange(width * len(rows), dtype=np.float32).reshape(-1, width) if width else None,
        has_pairs=has_pairs,
    )


def same(one: Tokenized, other: Tokenized) -> bool:
    return (
        np.array_equal(one.pieces.ids, other.pieces.ids)
        and np.array_equal(one.pieces.type_ids, other.pieces.type_ids)
        and np.array_equal(one.pieces.offsets, other.pieces.offsets)
        and np.array_equal(one.labels, other.labels, equal_nan=True)
        and np.array_equal(one.keys, other.keys)
        and (one.logits is None) == (other.logits is None)
        and (one.logits is None or other.logits is None or np.array_equal(one.logits, other.logits))
        and one.has_pairs == other.has_pairs
    )


def never() -> Tokenized:
    raise AssertionError("the entry exists")


def counted(entry: Tokenized, calls: list[int]) -> Callable[[], Tokenized]:
    def make() -> Tokenized:
        calls.append(1)
        return entry

    return make


@given(ROWS, st.booleans(), st.integers(0, 3))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], has_pairs: bool, width: int
) -> None:
    path = tmp_path_factory.mktemp("entry") / "one.arrow"
    entry = entry_of(rows, has_pairs, width)
    write_entry(str(path), entry)
    found = read_entry(path)
    assert found is not None
    assert same(found, entry)
    assert found.pieces.ids.dtype == np.int32


def test_an_entry_is_made_once_for_each_key(tmp_path: Path) -> None:
    cache = TokenCache(folder=str(tmp_path / "new" / "folder"), max_bytes=10**9)
    calls: list[int] = []
    entry = entry_of([[1, 2], [3]])
    for _ in range(3):
        assert same(cache.get(["a", 1], counted(entry, calls)), entry)
    assert len(calls) == 1
    cache.get(["a", 2], counted(entry, calls))
    assert len(calls) == 2
    assert {path.suffix for path in (tmp_path / "new" / "folder").iterdir()} == {".arrow"}, "nothing else is left"


@pytest.mark.parametrize("where", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_a_damaged_entry_is_made_again(tmp_path: Path, where: float) -> None:
    cache = TokenCache(folder=str(tmp_path), max_bytes=10**9)
    entry = entry_of([list(range(100 * row, 100 * row + 50)) for row in range(40)], True, 2)
    cache.get(["a"], lambda: entry)
    (path,) = tmp_path.glob("*.arrow")
    whole = path.read_bytes()
    cut = int(where * len(whole))
    calls: list[int] = []
    for damaged in (whole[:cut], bytes(byte ^ 255 for byte in whole[: cut or 64]) + whole[cut or 64 :]):
        path.unlink()  # the old file may still be mapped
        path.write_bytes(damaged)
        if damaged == whole:
            continue
        assert same(cache.get(["a"], counted(entry, calls)), entry)
        assert same(cache.get(["a"], never), entry), "and kept"
        assert len(calls) == 1
        calls.clear()


def test_a_flipped_bit_anywhere_in_the_arrays_is_noticed(tmp_path: Path) -> None:
    entry = entry_of([[1, 2, 3], [4, 5]], True, 2)
    path = tmp_path / "one.arrow"
    write_entry(str(path), entry)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = tmp_path / f"{place}.arrow"
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        found = read_entry(damaged)
        assert found is None or same(found, entry), place


def test_the_folder_stays_within_its_bound_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    entry = entry_of([list(range(1000))])
    write_entry(str(tmp_path / "probe"), entry)
    size = (tmp_path / "probe").stat().st_size
    (tmp_path / "probe").unlink()
    cache = TokenCache(folder=str(tmp_path), max_bytes=3 * size)
    for number in range(3):
        cache.get([number], lambda: entry)
    cache.get([0], never)
    cache.get([3], lambda: entry)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3 * size
    cache.get([0], never)
    calls: list[int] = []
    cache.get([1], counted(entry, calls))
    assert calls == [1], "the oldest was removed"


def test_without_a_writable_folder_rows_are_tokenized_each_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = TokenCache(folder=str(tmp_path / "file" / "below"), max_bytes=10**9)
    calls: list[int] = []
    entry = entry_of([[1]])
    for _ in range(2):
        assert same(cache.get(["a"], counted(entry, calls)), entry)
    assert len(calls) == 2
    nothing = TokenCache(folder=str(tmp_path / "unused"), max_bytes=0)
    nothing.get(["a"], counted(entry, calls))
    assert not (tmp_path / "unused").exists()


def test_processes_that_want_the_same_entry_make_it_once(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from tests.unit.trainer.data.test_token_cache import entry_of, same\n"
        "from trainer.data.token_cache import TokenCache\n"
        "folder, number = Path(sys.argv[1]), sys.argv[2]\n"
        "def make():\n"
        "    (folder / f'made-{number}').touch(); time.sleep(1); return entry_of([[1, 2], [3]])\n"
        "(folder / f'ready-{number}').touch()\n"
        "while len(list(folder.glob('ready-*'))) < 3: time.sleep(0.01)\n"
        "found = TokenCache(folder=str(folder / 'cache'), max_bytes=10**9).get(['a'], make)\n"
        "assert same(found, entry_of([[1, 2], [3]]))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(number)], cwd=ROOT) for number in range(3)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("made-*"))) == 1
