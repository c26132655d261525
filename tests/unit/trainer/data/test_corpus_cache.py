"""Corpora on local disk: the same ids as in memory, made once, bounded in memory and on disk, and never wrong."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import InputError
from shared.storage.input_files import sha256_of
from tests.support.command import ROOT
from tests.support.models import save_random_model
from trainer.data.corpus_cache import CorpusCache
from trainer.data.token_file import TokenFile
from trainer.models import load_tokenizer, tokenizer_fingerprint

LINES = [f"the man is in house number {number} . it is not a good house" for number in range(5000)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(str(save_random_model("bert", tmp_path_factory.mktemp("model") / "m")))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


def cache_in(folder: Path, tokenizer: Any, gib: float = 1.0, held_out: float = 0.1) -> CorpusCache:
    return CorpusCache(
        folder=str(folder),
        max_bytes=int(gib * 2**30),
        tokenizer=tokenizer,
        tokenizer_digest=tokenizer_fingerprint(tokenizer),
        held_out=held_out,
    )


def get(cache: CorpusCache, path: Path) -> tuple[TokenFile, TokenFile]:
    return cache.get(str(path), sha256_of(path))


def same(one: tuple[TokenFile, TokenFile], other: tuple[TokenFile, TokenFile]) -> bool:
    return all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.offsets, b.offsets) and a.ids.dtype == b.ids.dtype
        for a, b in zip(one, other, strict=True)
    )


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("tokenized once more")


def test_ids_on_disk_are_those_in_memory_and_made_once(
    tmp_path: Path, corpus: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory = get(cache_in(tmp_path / "unused", tokenizer, gib=0), corpus)
    assert not (tmp_path / "unused").exists()
    assert in_memory[0].path is None
    assert 0 < in_memory[1].num_lines < 1000
    assert in_memory[0].num_lines + in_memory[1].num_lines == len(LINES)
    on_disk = get(cache_in(tmp_path / "cache", tokenizer), corpus)
    assert on_disk[0].path is not None
    assert same(in_memory, on_disk)
    monkeypatch.setattr(CorpusCache, "_tokenize", never)
    assert same(in_memory, get(cache_in(tmp_path / "cache", tokenizer), corpus))


def test_another_process_maps_the_files_instead_of_getting_a_copy(tmp_path: Path, corpus: Path, tokenizer: Any) -> None:
    found = get(cache_in(tmp_path / "cache", tokenizer), corpus)
    sent = pickle.dumps(found)
    assert len(sent) < 1000
    assert same(found, pickle.loads(sent))
    in_memory = get(cache_in(tmp_path, tokenizer, gib=0), corpus)
    assert same(in_memory, pickle.loads(pickle.dumps(in_memory)))


def test_what_decides_the_ids_decides_the_entry(
    tmp_path: Path, corpus: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(cache_in(tmp_path / "cache", tokenizer), corpus)
    monkeypatch.setattr(CorpusCache, "_tokenize", never)
    corpus.with_name("copy.txt").write_bytes(corpus.read_bytes())
    get(cache_in(tmp_path / "cache", tokenizer), corpus.with_name("copy.txt"))
    corpus.write_text("\n".join(LINES[1:]), encoding="utf-8")
    for cache, path in (
        (cache_in(tmp_path / "cache", tokenizer), corpus),
        (cache_in(tmp_path / "cache", tokenizer, held_out=0.2), corpus.with_name("copy.txt")),
    ):
        with pytest.raises(AssertionError, match="once more"):
            get(cache, path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["train.ids", "train.offsets", "held_out.ids", "held_out.offsets", "facts.json"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["flip", "cut", "delete"]),
)
def test_any_damage_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, corpus: Path, tokenizer: Any, name: str, where: float, kind: str
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    expected = get(cache_in(folder, tokenizer, gib=0), corpus)
    get(cache_in(folder, tokenizer), corpus)
    (path,) = folder.glob(f"corpora/*/{name}")
    content = path.read_bytes()
    place = int(where * len(content))
    # A file that is mapped must not be written to.
    path.unlink()
    if kind == "flip":
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    elif kind == "cut":
        path.write_bytes(content[:place])
    assert same(expected, get(cache_in(folder, tokenizer), corpus))


def test_a_folder_that_cannot_be_used_costs_memory_only(tmp_path: Path, corpus: Path, tokenizer: Any) -> None:
    (tmp_path / "file").write_text("")
    found = get(cache_in(tmp_path / "file" / "below", tokenizer), corpus)
    assert same(found, get(cache_in(tmp_path, tokenizer, gib=0), corpus))


def test_a_corpus_without_training_lines_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    for gib in (0, 1):
        with pytest.raises(InputError, match=r"empty\.txt contains no text to train on"):
            get(cache_in(tmp_path / "cache", tokenizer, gib=gib), tmp_path / "empty.txt")


def run_python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    setup = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.unit.trainer.data.test_corpus_cache import *\n"
        "folder, corpus, tokenizer = Path(sys.argv[1]), Path(sys.argv[2]), load_tokenizer(sys.argv[3])\n"
    )
    command = [sys.executable, "-c", setup + code, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_folder_keeps_its_bound_and_what_is_in_use(tmp_path: Path, corpus: Path, tokenizer: Any) -> None:
    folder, model = tmp_path / "cache", tmp_path / "model"
    tokenizer.save_pretrained(model)
    for held_out in (0.1, 0.2):
        # Made by a process that has ended, so nobody uses it.
        made = run_python(f"get(cache_in(folder, tokenizer, held_out={held_out}), corpus)", folder, corpus, model)
        assert made.returncode == 0, made.stderr
    mine = get(cache_in(folder, tokenizer, held_out=0.3), corpus)
    assert len([*folder.glob("corpora/*/facts.json")]) == 3
    small = replace(cache_in(folder, tokenizer, held_out=0.4), max_bytes=1)
    get(small, corpus)
    assert len([*folder.glob("corpora/*/facts.json")]) == 2, "the two in use"
    assert same(mine, get(cache_in(tmp_path, tokenizer, gib=0, held_out=0.3), corpus))


def test_a_process_killed_while_it_makes_an_entry_leaves_nothing_for_good(
    tmp_path: Path, corpus: Path, tokenizer: Any
) -> None:
    folder, model = tmp_path / "cache", tmp_path / "model"
    tokenizer.save_pretrained(model)
    code = (
        "import os, signal\nimport trainer.data.corpus_cache as module\n"
        "module._checksum = lambda path: os.kill(os.getpid(), signal.SIGKILL)\n"
        "get(cache_in(folder, tokenizer), corpus)"
    )
    assert run_python(code, folder, corpus, model).returncode == -9
    assert [*folder.glob("corpora/*.partial")]
    assert same(get(cache_in(folder, tokenizer), corpus), get(cache_in(folder, tokenizer, gib=0), corpus))
    assert not [*folder.glob("corpora/*.partial")]


def test_several_processes_share_one_entry(tmp_path: Path, corpus: Path, tokenizer: Any) -> None:
    folder, model = tmp_path / "cache", tmp_path / "model"
    tokenizer.save_pretrained(model)
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from tests.unit.trainer.data.test_corpus_cache import *\n"
        "folder, corpus, tokenizer, number = *map(Path, sys.argv[1:3]), load_tokenizer(sys.argv[3]), sys.argv[4]\n"
        "make = CorpusCache._make\n"
        "CorpusCache._make = lambda *all: (Path(f'{folder}-made-{number}').touch(), time.sleep(1), make(*all))\n"
        "Path(f'{folder}-ready-{number}').touch()\n"
        "while len([*folder.parent.glob('cache-ready-*')]) < 3: time.sleep(0.01)\n"
        "found = get(cache_in(folder, tokenizer), corpus)\n"
        "Path(f'{folder}-found-{number}').touch()\n"
        "while len([*folder.parent.glob('cache-found-*')]) < 3: time.sleep(0.01)\n"
        "assert same(found, get(cache_in(folder, tokenizer, gib=0), corpus))\n"
    )
    arguments = [str(folder), str(corpus), str(model)]
    processes = [subprocess.Popen([sys.executable, "-c", code, *arguments, str(one)], cwd=ROOT) for one in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert len([*tmp_path.glob("cache-made-*")]) == 1


@pytest.mark.slow
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, tokenizer: Any) -> None:
    model, corpus = tmp_path / "model", tmp_path / "large.txt"
    tokenizer.save_pretrained(model)
    corpus.write_text("\n".join(f"{number} " + "house " * 39 for number in range(80_000)), encoding="utf-8")
    code = (
        "def anonymous(): return next(int(line.split()[1]) for line in open('/proc/self/smaps_rollup')"
        " if line.startswith('Anonymous'))\n"
        "before = anonymous()\n"
        "found = get(cache_in(folder, tokenizer, gib=float(sys.argv[4])), corpus)\n"
        "print(anonymous() - before, found[0].ids.nbytes // 1024)\n"
    )
    growth = {}
    for gib in ("1", "0"):
        done = run_python(code, tmp_path / "cache", corpus, model, gib)
        assert done.returncode == 0, done.stderr
        growth[gib], ids = (int(one) for one in done.stdout.split())
    assert growth["0"] > ids, "in memory, all ids are"
    assert growth["1"] < growth["0"] - 0.8 * ids
