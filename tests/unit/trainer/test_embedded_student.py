"""The general student that ships: found, small, refused when a byte differs, and loaded by plain transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from shared.embedded.student import STUDENT_PATH, embedded_student, read_student, vocabulary_digest, write_student
from shared.errors import ModelError


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, str, transformers.BertForSequenceClassification]:
    tokenizer = transformers.BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5})
    config = transformers.BertConfig(
        vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    model = transformers.BertForSequenceClassification(config).half().float()
    path = tmp_path / "student.safetensors"
    return path, write_student(path, model, {"maps.0.weight": torch.ones(3, 8)}, tokenizer), model


def test_a_student_comes_back_with_a_new_classifier(
    written: tuple[Path, str, transformers.BertForSequenceClassification],
) -> None:
    path, digest, model = written
    student = read_student(path, digest)
    again = student.new_classifier(3, hidden_dropout_prob=0.25)
    assert again.classifier.out_features == 3
    assert again.config.hidden_dropout_prob == 0.25
    for name, value in again.bert.state_dict().items():
        assert name.startswith("pooler.") or torch.equal(value, model.bert.state_dict()[name]), name
    assert torch.equal(student.projections["maps.0.weight"], torch.ones(3, 8))
    assert not any("pooler" in name for name in student.weights)


@pytest.mark.parametrize("place", [0, 200, -1])
def test_a_changed_byte_is_refused(
    written: tuple[Path, str, transformers.BertForSequenceClassification], place: int
) -> None:
    path, digest, _ = written
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"has changed \(sha256") as caught:
        read_student(path, digest)
    assert "\n" not in str(caught.value)


def test_a_missing_student_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_student(tmp_path / "student.safetensors", "0" * 64)


def test_the_released_student_is_small_and_reads_like_the_embedded_encoder(tmp_path: Path) -> None:
    from shared.embedded import resolve_encoder

    assert STUDENT_PATH.stat().st_size <= 12_000_000
    student = embedded_student()
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve_encoder("embedded"))
    assert student.vocabulary_sha256 == vocabulary_digest(tokenizer.get_vocab())
    model = student.new_classifier(2)
    model.save_pretrained(tmp_path / "model")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    inputs = tokenizer("A fine film.", "It was fun to watch.", return_tensors="pt")
    with torch.no_grad():
        logits = plain(**inputs).logits
        assert torch.isfinite(logits).all()
        assert torch.equal(logits, model.eval()(**inputs).logits)
