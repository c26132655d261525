"""Exit codes, and the one line that wrong usage, bad input and bad models give."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import transformers

from augment_service.cli import main
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import ModelError
from tests.support.models import save_random_model, save_random_vectors


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "COMMAND"),
        (["fly"], 2, "invalid choice"),
        (["run"], 2, "--input is required"),
        (["run", "--input", "x.tsv"], 2, "--output is required"),
        (["run", "--input", "x.tsv", "--output", "o", "--wings", "2"], 2, "--wings"),
        (["run", "--input", "x.tsv", "--output", "o", "--k", "many"], 2, "--k: got 'many'"),
        (["run", "--input", "x.tsv", "--output", "o", "--p-t", "1.5"], 2, "--p-t: got '1.5'"),
        (["run", "--input", "x.tsv", "--output", "o", "--context", "triple"], 2, "--context: got 'triple'"),
        (["run", "--input", "x.tsv", "--output", "o", "--task", "GLUE"], 2, "GLUE"),
        (["run", "--input", "x.tsv", "--output", "hdfs://b/p", "--task", "SST-2"], 2, "a local path, s3"),
        (["run", "--input", "gone.tsv", "--output", "o", "--task", "SST-2"], 1, "gone.tsv: no such file"),
        (["run", "--config", "gone.yaml"], 2, "--config gone.yaml"),
        (["status", "nowhere"], 1, "nowhere has no manifest.json"),
        (["verify", "nowhere"], 1, "nowhere has no manifest.json"),
        (["export", "nowhere", "--output", "x"], 1, "nowhere has no manifest.json"),
        (["candidates", "--input", "gone.jsonl"], 1, "gone.jsonl: No such file"),
    ],
)
def test_wrong_usage_gives_one_line_and_exit_code(
    arguments: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.out == ""
    if arguments:
        assert len(printed.err.strip().splitlines()) == 1


def test_flags_override_the_configuration_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "job.yaml"
    config.write_text("input: [gone.tsv]\noutput: o\ntext-column: [text]\nk: 0\n", encoding="utf-8")
    assert main(["run", "--config", str(config)]) == 2
    assert "--k" in capsys.readouterr().err
    assert main(["run", "--config", str(config), "--k", "3"]) == 1
    assert "gone.tsv" in capsys.readouterr().err
    config.write_text("kk: 3\n", encoding="utf-8")
    assert main(["run", "--config", str(config)]) == 2
    assert "unknown option 'kk'" in capsys.readouterr().err


def test_a_model_folder_without_a_masked_lm_head_is_rejected(tmp_path: Path) -> None:
    folder = save_random_model("bert-uncased", tmp_path / "model")
    encoder = transformers.BertModel.from_pretrained(folder)
    encoder.config.architectures = None
    encoder.save_pretrained(folder)
    with pytest.raises(ModelError, match="head"):
        MaskedLM.load(str(folder), "cpu", "fp32")
    with pytest.raises(ModelError, match="nowhere"):
        MaskedLM.load(str(tmp_path / "nowhere"), "cpu", "fp32")


def test_a_model_folder_without_tokenizer_or_with_truncated_weights_is_rejected(tmp_path: Path) -> None:
    folder = save_random_model("bert-uncased", tmp_path / "model")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"--mlm .*model: "):
        MaskedLM.load(str(folder), "cpu", "fp32")
    weights.write_bytes(whole)
    for one in folder.glob("*tokenizer*"):
        one.unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer \(tokenizer.json or vocab.txt\)"):
        MaskedLM.load(str(folder), "cpu", "fp32")


def test_vectors_are_read_from_text_gzip_and_word2vec_files(tmp_path: Path) -> None:
    path = save_random_vectors(tmp_path / "glove.txt")
    lines = path.read_text(encoding="utf-8")
    (tmp_path / "glove.txt.gz").write_bytes(gzip.compress(lines.encode()))
    count, size = len(lines.splitlines()), len(lines.splitlines()[0].split()) - 1
    (tmp_path / "w2v.txt").write_text(f"{count} {size}\n{lines}", encoding="utf-8")
    answers = [
        GloveVectors.load(str(tmp_path / name)).nearest(["fox", "unknown-word"], 4)
        for name in ("glove.txt", "glove.txt.gz", "w2v.txt")
    ]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]["fox"]) == 4
    assert answers[0]["unknown-word"] == ()


@pytest.mark.parametrize(
    "content",
    ["", "fox 1.0 2.0\ndog 1.0\n", "fox one two\n", "fox nan 2.0\n", "fox 1.0 2.0\ndog 1.0 inf\n", "\x00\x01\ufffd\n"],
)
def test_damaged_vectors_are_rejected_and_the_file_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"bad.txt"):
        GloveVectors.load(str(path))


def test_candidates_answers_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_random_model("bert-uncased", tmp_path / "model")
    vectors = save_random_vectors(tmp_path / "glove.txt")
    lines = [{"id": "a", "text": "the quick fox"}, {"text_a": "good movie", "text_b": "honestly bad"}]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    options = ["--mlm", str(model), "--glove", str(vectors), "--k", "5"]
    assert main(["candidates", "--input", str(source), *options]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["id"], one["field"]) for one in answers] == [("a", "text"), (1, "text_a"), (1, "text_b")]
    assert answers[0]["words"] == ["the", "quick", "fox"]
    assert all(len(site["candidates"]) <= 5 for one in answers for site in one["sites"])
    source.write_text('{"id": 1}\n', encoding="utf-8")
    assert main(["candidates", "--input", str(source), *options]) == 1
    assert "line 1 needs" in capsys.readouterr().err
    source.write_text('{"id": 1, "text": "lone \\ud800 half"}\n', encoding="utf-8")
    assert main(["candidates", "--input", str(source), *options]) == 1
    assert "line 1: text contains a lone surrogate" in capsys.readouterr().err
