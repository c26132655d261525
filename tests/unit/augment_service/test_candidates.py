"""The `candidates` command: answers as lines arrive, a bad line costs itself only, and no flag without an effect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from augment_service.cli import main
from augment_service.config import CandidatesConfig
from shared.errors import UsageError
from tests.support.command import ROOT
from tests.support.models import save_random_model, save_random_vectors


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    model, vectors = save_random_model("bert-uncased", folder / "mlm"), save_random_vectors(folder / "glove.txt")
    return ["--mlm", str(model), "--glove", str(vectors), "--k", "3", "--device", "cpu", "--dtype", "fp32"]


def test_an_answer_appears_before_the_next_line_is_written(models: list[str]) -> None:
    command = [sys.executable, "-m", "augment_service", "candidates", *models]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(json.dumps({"id": number, "text": "the quick fox"}).encode() + b"\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["id"] == number
        process.stdin.write(b'{"id": 3, "text": "a line without an end"}')
        process.stdin.close()
        assert json.loads(process.stdout.readline())["id"] == 3
        assert process.wait() == 0


def test_a_bad_line_costs_itself_only(models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [b'{"id": "x"}', b"{", b"[1]", b"\xff\xfe", b'{"id": 7, "text": 3}', b'{"id": "\\ud800", "text": "fox"}']
    good = [json.dumps({"id": number, "text": "the quick fox"}).encode() for number in range(70)]
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"\n".join([good[0], b"", *bad, *good[1:]]))
    assert main(["candidates", "--input", str(source), *models]) == 1
    printed = capsys.readouterr()
    assert [json.loads(line)["id"] for line in printed.out.splitlines()] == list(range(70))
    *lines, last = printed.err.splitlines()
    errors = [json.loads(line) for line in lines if line.startswith("{")]
    assert [one["line"] for one in errors] == [3, 4, 5, 6, 7, 8]
    assert [one.get("id") for one in errors] == ["x", None, None, None, 7, "\ud800"]
    assert "6 of 76 lines could not be used; the first: " in last
    assert "line 3 needs" in last


@pytest.mark.parametrize(
    "flags",
    [
        "--n-a 3",
        "--p-t 0.9",
        "--seed 7",
        "--conditioning sequential",
        "--pairs each",
        "--text reference",
        "--case keep",
    ],
)
def test_a_flag_without_effect_is_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["candidates", *flags.split()]) == 2
    printed = capsys.readouterr()
    assert "unrecognized arguments: " + flags in printed.err
    assert len(printed.err.splitlines()) == 1


@pytest.mark.parametrize("command", [["candidates"], ["serve"]])
def test_json_is_refused_where_there_is_no_summary(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "--json"]) == 2
    assert "--json has no effect here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--protect", "(a"], "--protect: Not a valid regular expression: '(a'"),
        (["--protect", "url"], "--protect: Unknown kind 'url'; the kinds are urls, emails"),
        (["--protect-words", "gone.txt"], "--protect-words gone.txt: No such file"),
        (["--stop-words", "gone.txt"], "--stop-words gone.txt: No such file"),
        (["--k", "0"], "--k: got '0'"),
    ],
)
@pytest.mark.parametrize("command", [["candidates"], ["run", "--input", "x", "--output", "o", "--task", "SST-2"]])
def test_what_cannot_be_protected_gives_one_line(
    command: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, *arguments]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1


def test_files_of_words_are_known_by_their_content(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_bytes(b"\xef\xbb\xbfNew York\r\nfilm\r\n\r\n")
    second.write_text("film\nnew  york\n", encoding="utf-8")
    one = CandidatesConfig.build({"protect_words": [str(first)]})
    other = CandidatesConfig.build({"protect_words": [str(second)]})
    assert one.params().protect_words == other.params().protect_words == ("film", "new york")
    assert one.fingerprint() == other.fingerprint() != CandidatesConfig.build({}).fingerprint()
    second.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"b\.txt is not UTF-8 text"):
        CandidatesConfig.build({"stop_words": [str(second)]})


def test_protected_words_have_no_candidates(
    models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "the quick fox www.good.com"}\n', encoding="utf-8")
    words = tmp_path / "words.txt"
    words.write_text("FOX\n", encoding="utf-8")

    def sites(*flags: str) -> list[str]:
        assert main(["candidates", "--input", str(source), *models, *flags]) == 0
        return [site["word"] for site in json.loads(capsys.readouterr().out)["sites"]]

    assert sites() == ["quick", "fox", "www", "good", "com"]
    assert sites("--protect", "urls", "--protect-words", str(words)) == ["quick"]
    assert sites("--stop-words", "none") == ["the", "quick", "fox", "www", "good", "com"]
