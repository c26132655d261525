"""Files of word vectors of every maker, and the cache of parsed ones."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import lzma
import os
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from augment_service.engine import vector_cache
from augment_service.engine.glove import GloveVectors
from augment_service.engine.presence import check_models_exist
from augment_service.engine.vector_cache import cached_vectors
from augment_service.engine.vector_files import read_vectors
from shared.errors import ModelError

WORDS = ["the", ". . .", "\u0085", "naïve", "2000", "the"]
ROWS = np.asarray([[0.5, -1, 2], [1e-3, 0, 1], [-0.25, 0.125, 3], [1, 1, 1], [2, 0, 0], [0, 4, 0]], np.float32)
TEXT = "".join(f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(WORDS, ROWS, strict=True)).encode()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUGMENT_SERVICE_CACHE", str(tmp_path / "cache"))
    # Files of a test are younger than the time within which a source is always read again.
    monkeypatch.setattr(vector_cache, "_RACY_SECONDS", 0.0)
    return tmp_path / "cache" / "tinybert-augment"


TEXTS: dict[str, bytes] = {
    "glove": TEXT,
    "header": b"6 3\n" + TEXT,
    "mark": b"\xef\xbb\xbf" + TEXT,
    "mark and header": b"\xef\xbb\xbf6 3\n" + TEXT,
    "blank lines": b"\n" + TEXT + b"\n \n",
    "blank at line ends": TEXT.replace(b"\n", b" \n"),
    "carriage returns": TEXT.replace(b"\n", b"\r\n"),
    "no last line end": TEXT.removesuffix(b"\n"),
    "gzip": gzip.compress(TEXT),
    "bzip2": bz2.compress(TEXT),
    "xz": lzma.compress(TEXT),
}


@pytest.mark.parametrize("content", TEXTS.values(), ids=TEXTS.keys())
def test_text_of_every_maker(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vectors").write_bytes(content)
    found = read_vectors(str(tmp_path / "vectors"), None)
    assert found.words == WORDS
    np.testing.assert_array_equal(found.matrix, ROWS)
    assert found.problem == ""
    assert read_vectors(str(tmp_path / "vectors"), 2).words == WORDS[:2]


def test_zip_archives(tmp_path: Path) -> None:
    one, two = tmp_path / "one.zip", tmp_path / "two.zip"
    with zipfile.ZipFile(one, "w") as archive:
        archive.writestr("glove.txt", TEXT)
    with zipfile.ZipFile(two, "w") as archive:
        archive.writestr("a/50d.txt", TEXT)
        archive.writestr("a/300d.txt", TEXT)
    assert read_vectors(str(one), None).words == WORDS
    named = f"{two}/a/300d.txt"
    check_models_exist("embedded", named)
    assert read_vectors(named, None).words == WORDS
    with pytest.raises(ModelError, match=r"two.zip contains several files: a/50d.txt, a/300d.txt; choose one, such as"):
        read_vectors(str(two), None)
    with pytest.raises(ModelError, match=r"has no b.txt, only"):
        read_vectors(f"{two}/b.txt", None)


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_binary_vectors_of_word2vec_and_fasttext(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    from gensim.models import FastText, KeyedVectors
    from gensim.models.fasttext import save_facebook_model

    vectors = KeyedVectors(3)
    # This format ends a word at its first blank.
    words = ["the", "naïve", "2000", "\u0085", "film"]
    vectors.add_vectors(words, ROWS[:5])
    vectors.save_word2vec_format(str(tmp_path / "plain"), binary=True)
    (tmp_path / "w2v.bin").write_bytes(pack((tmp_path / "plain").read_bytes()))
    found = read_vectors(str(tmp_path / "w2v.bin"), None)
    assert found.words == words
    np.testing.assert_array_equal(found.matrix, ROWS[:5])
    assert read_vectors(str(tmp_path / "w2v.bin"), 2).words == words[:2]
    model = FastText(
        [["good", "film"], ["bad", "film"]] * 5, vector_size=4, min_count=1, epochs=1, bucket=50, workers=1
    )
    save_facebook_model(model, str(tmp_path / "plain"))
    (tmp_path / "ft.bin").write_bytes(pack((tmp_path / "plain").read_bytes()))
    found = read_vectors(str(tmp_path / "ft.bin"), None)
    assert sorted(found.words) == ["bad", "film", "good"]
    np.testing.assert_allclose(found.matrix[found.words.index("good")], model.wv["good"], rtol=1e-5)
    for name in ("w2v.bin", "ft.bin"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(ModelError, match=name):
            read_vectors(str(tmp_path / name), None)


def lines_of(count: int) -> list[str]:
    return [f"w{number} {number}.5 1 2" for number in range(count)]


@pytest.mark.parametrize(
    "bad", ["w 1 2", "w 1 2 x", "w 1 2 nan", "w 1 2 inf", "justaword", " 1 2 3", "w 1 2 3.5x", "w 1  2 3"]
)
def test_a_bad_line_is_counted_named_and_left_out_until_there_are_too_many(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("\n".join([*lines_of(150), bad, *lines_of(150)]) + "\n", encoding="utf-8")
    found = read_vectors(str(path), None)
    assert len(found.words) == 300
    assert found.problem.startswith("1 lines skipped; the first: line 151: expected a word and 3 numbers")
    path.write_text("\n".join([*lines_of(150), bad, *lines_of(1), bad, bad, bad]) + "\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"vectors.txt line 151: .*4 of 155 lines"):
        read_vectors(str(path), None)


def test_a_word_that_is_not_utf_8_is_a_bad_line(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_bytes("\n".join(lines_of(200)).encode() + b"\nna\xefve 1 2 3\n")
    assert "line 201: expected UTF-8; got 'na\\\\xefve" in read_vectors(str(path), None).problem


def test_a_file_that_was_cut_says_so(tmp_path: Path) -> None:
    path = tmp_path / "vectors.vec"
    path.write_text("400000 3\n" + "\n".join(lines_of(200)), encoding="utf-8")
    assert read_vectors(str(path), None).problem == "the header announces 400000 words, but the file contains 200"
    assert read_vectors(str(path), 100).problem == ""
    (tmp_path / "cut.gz").write_bytes(gzip.compress(TEXT)[:-9])
    with pytest.raises(ModelError, match=r"cut.gz"):
        read_vectors(str(tmp_path / "cut.gz"), None)


NUMBER = st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)


@given(st.data())
def test_blocks_of_lines_are_read_as_one_line_after_another(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    width = data.draw(st.integers(2, 4))
    word = st.text(
        st.characters(exclude_characters="\n\r ", exclude_categories=["Cs", "Z", "Cc"]), min_size=1, max_size=4
    )
    rows = data.draw(
        st.lists(st.tuples(word, st.lists(NUMBER, min_size=width, max_size=width)), min_size=1, max_size=9)
    )
    text = "".join(f"{one} {' '.join(values)}\n" for one, values in rows)
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    path.write_text(text, encoding="utf-8", newline="\n")
    found = read_vectors(str(path), None)
    assert found.words == [one for one, _ in rows]
    wanted = np.stack([np.asarray(values, np.float32) for _, values in rows])
    np.testing.assert_array_equal(found.matrix, wanted)
    # Recorded in manifests: that of an earlier version, so that outputs can be continued.
    assert found.fingerprint == hashlib.sha256(b"None" + text.encode()).hexdigest()


def write_npy(folder: Path, rows: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"index": [f"w{number}" for number in range(len(rows))]}), folder / "x.index.parquet")
    np.save(folder / "x.emb.npy", rows)


def test_every_row_of_a_folder_counts_for_its_fingerprint(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).random((300, 4), np.float32)
    write_npy(tmp_path / "a", rows)
    seen = {cached_vectors(str(tmp_path / "a"), None).fingerprint}
    for row in (1, 98, 299):
        rows[row, 3] += 1
        write_npy(tmp_path / "a", rows)
        found = cached_vectors(str(tmp_path / "a"), None)
        seen.add(found.fingerprint)
        np.testing.assert_allclose(found.unit[row], rows[row] / np.linalg.norm(rows[row]), rtol=1e-6)
    assert len(seen) == 4


def source(tmp_path: Path) -> str:
    (tmp_path / "vectors.txt").write_bytes(TEXT)
    return str(tmp_path / "vectors.txt")


def test_a_second_start_reads_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(tmp_path)
    first = cached_vectors(path, None)
    monkeypatch.setattr(vector_cache, "read_vectors", lambda *_: pytest.fail("parsed again"))
    again = cached_vectors(path, None)
    assert (again.words, again.fingerprint, again.zero_rows) == (first.words, first.fingerprint, first.zero_rows)
    np.testing.assert_array_equal(again.unit, first.unit)
    assert isinstance(again.unit, np.memmap)


def test_a_source_that_changed_is_read_again_even_with_its_old_size_and_time(tmp_path: Path) -> None:
    path = source(tmp_path)
    before = os.stat(path)
    cached_vectors(path, None)
    Path(path).write_bytes(TEXT.replace(b"0.5", b"0.7"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cached_vectors(path, None).unit[0, 0] == pytest.approx(0.7 / np.linalg.norm([0.7, -1, 2]))


def test_a_source_written_just_now_is_not_trusted(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_cache, "_RACY_SECONDS", 2.0)
    path = source(tmp_path)
    cached_vectors(path, None)
    assert not list(own_cache.glob("*.source.json"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
@pytest.mark.parametrize("pattern", ["*.unit.npy", "*.json", "*.source.json"])
def test_a_damaged_cache_is_made_again(
    tmp_path: Path, own_cache: Path, damage: Callable[[Path], None], pattern: str
) -> None:
    path = source(tmp_path)
    first = np.array(cached_vectors(path, None).unit)
    for one in own_cache.glob(pattern):
        damage(one)
    again = cached_vectors(path, None)
    assert again.words == WORDS
    np.testing.assert_array_equal(again.unit, first)


def test_writers_at_once_and_damage_in_between(tmp_path: Path, own_cache: Path) -> None:
    path = source(tmp_path)
    wanted = GloveVectors.load(path).nearest(["the"], 3)
    problems: list[object] = []

    def work() -> None:
        for _ in range(12):
            try:
                if GloveVectors.load(path).nearest(["the"], 3) != wanted:
                    problems.append("other neighbours")
            except Exception as error:
                problems.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        for one in own_cache.glob("*.json"):
            one.unlink(missing_ok=True)
        time.sleep(0.005)
    assert problems == []
    assert not [one.name for one in own_cache.iterdir() if one.suffix not in (".json", ".npy")]


def test_an_entry_that_is_removed_as_soon_as_it_is_written_is_no_problem(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source(tmp_path)
    wanted = cached_vectors(path, None)
    renamed = vector_cache._renamed_when_written

    @contextlib.contextmanager
    def removed_at_once(target: Path) -> Iterator[Path]:
        with renamed(target) as temporary:
            yield temporary
        target.unlink()

    for one in own_cache.iterdir():
        one.unlink()
    monkeypatch.setattr(vector_cache, "_renamed_when_written", removed_at_once)
    found = cached_vectors(path, None)
    assert list(own_cache.iterdir()) == []
    assert found.words == wanted.words
    np.testing.assert_array_equal(found.unit, wanted.unit)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AUGMENT_SERVICE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="AUGMENT_SERVICE_CACHE"):
        cached_vectors(source(tmp_path), None)
