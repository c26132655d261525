"""ELECTRA, DistilBERT and RoBERTa as BERT models: the same logits, states and attention as in plain transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.support.classifiers import save_classifier_of
from trainer.config import StudentConfig
from trainer.conversion import as_bert, as_bert_encoder, embedding_tables, is_like_bert
from trainer.evaluation import in_precision
from trainer.scores import classify, encode
from trainer.student import StudentSize, new_student

KINDS = ("electra", "electra-narrow", "distilbert", "roberta", "xlm-roberta", "camembert")
ROWS, LENGTH = 3, 12


def plain_of(kind: str, folder: Path, labels: tuple[str, ...] = ("a", "b", "c")) -> Any:
    path = save_classifier_of(kind, folder / kind, labels)
    options = {"attn_implementation": "eager", "dtype": torch.float32}
    return transformers.AutoModelForSequenceClassification.from_pretrained(path, **options).eval()


def batch_of(plain: Any, rows: int = ROWS, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, token types, mask) of rows of several lengths, padded, each the two texts of a pair."""
    torch.manual_seed(5)
    mask = torch.arange(length)[None] < torch.tensor([length, length - 3, 4])[:rows, None]
    ids = torch.randint(5, plain.config.vocab_size, (rows, length)).masked_fill(~mask, plain.config.pad_token_id)
    types = ((torch.arange(length) >= 3)[None] & mask).long()
    return ids, types, mask


def answers_of(plain: Any, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None) -> Any:
    given = {} if types is None else {"token_type_ids": types}
    with torch.no_grad():
        return plain(ids, attention_mask=mask.long(), output_hidden_states=True, output_attentions=True, **given)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_states_and_attention_are_those_of_plain_transformers(kind: str, tmp_path: Path) -> None:
    plain = plain_of(kind, tmp_path)
    assert is_like_bert(plain.config)
    reads_types = kind.startswith("electra")
    ids, types, mask = batch_of(plain)
    wanted = answers_of(plain, ids, mask, types if reads_types else None)
    model = as_bert(plain, names_types=reads_types)
    depth = model.config.num_hidden_layers
    with torch.no_grad():
        states = encode(model.bert, ids, types, mask, score_layers=range(1, depth + 1))
        logits = classify(model, ids, types, mask)
        alone = encode(as_bert_encoder(plain.base_model, names_types=reads_types), ids, types, mask)
    assert logits.std() > 0.1
    torch.testing.assert_close(logits, wanted.logits, atol=1e-5, rtol=0)
    assert len(states.hidden_states) == len(wanted.hidden_states) == depth + 1
    for own, other, theirs in zip(states.hidden_states, alone.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(own[mask], theirs[mask], atol=1e-5, rtol=0)
        torch.testing.assert_close(other[mask], theirs[mask], atol=1e-5, rtol=0)
    hidden = ~mask[:, None, None, :]
    for layer, theirs in enumerate(wanted.attentions, 1):
        own = states.attention_scores[layer].masked_fill(hidden, -torch.inf).softmax(-1)
        torch.testing.assert_close(own.transpose(1, 2)[mask], theirs.transpose(1, 2)[mask], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tokenizer_that_names_no_types_leaves_all_tokens_of_type_0(kind: str, tmp_path: Path) -> None:
    plain = plain_of(kind, tmp_path)
    ids, types, mask = batch_of(plain)
    wanted = answers_of(plain, ids, mask, None).logits
    model = as_bert(plain, names_types=False)
    with torch.no_grad():
        logits = classify(model, ids, types, mask)
    torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_input_is_that_of_the_plain_model(kind: str, tmp_path: Path) -> None:
    plain = plain_of(kind, tmp_path)
    model = as_bert(plain, names_types=False)
    length = model.config.max_position_embeddings
    assert length == 64
    ids = torch.randint(5, plain.config.vocab_size, (1, length))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        logits = classify(model, ids, torch.zeros_like(ids), None)
    torch.testing.assert_close(logits, answers_of(plain, ids, mask, None).logits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_only_the_encoder_is_rounded_and_the_plain_model_stays(kind: str, tmp_path: Path) -> None:
    plain = plain_of(kind, tmp_path)
    ids, types, mask = batch_of(plain)
    before = answers_of(plain, ids, mask, None).logits
    model = in_precision(as_bert(plain, names_types=False), torch.bfloat16)
    assert model.bert.encoder.layer[0].output.dense.weight.dtype == torch.bfloat16
    assert model.bert.pooler.dense.weight.dtype == model.classifier.weight.dtype == torch.float32
    with torch.no_grad():
        logits = classify(model, ids, types, mask)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, before, atol=0.1, rtol=0.1)
    assert torch.equal(answers_of(plain, ids, mask, None).logits, before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_student_begins_with_the_teacher_s_embeddings(kind: str, tmp_path: Path) -> None:
    plain = plain_of(kind, tmp_path)
    teacher = as_bert(plain, names_types=True).bert
    tables = embedding_tables(teacher)
    assert {name: table.shape[1] for name, table in tables.items()} == dict.fromkeys(tables, 32)
    # As wide as the teacher, nothing is lost: distances between tokens are the teacher's.
    student = new_student(StudentConfig(), StudentSize(2, 32, 48, 4), teacher, (1, 2), 3)
    own = student.bert.embeddings.word_embeddings.weight[5:25].detach()
    wanted = tables["word_embeddings"][5:25]
    torch.testing.assert_close(torch.cdist(own, own), torch.cdist(wanted, wanted), atol=1e-3, rtol=1e-3)
    assert student.config.max_position_embeddings == 64
    copied = StudentConfig(layer_init="teacher", embedding_init="random")
    student = new_student(copied, StudentSize(2, 32, 48, 4), teacher, (1, 2), 3)
    for one, theirs in zip(student.bert.encoder.layer, teacher.encoder.layer, strict=True):
        assert torch.equal(one.output.dense.weight, theirs.output.dense.weight)


def test_narrow_embeddings_add_to_the_states_what_their_tables_say(tmp_path: Path) -> None:
    teacher = as_bert(plain_of("electra-narrow", tmp_path), names_types=True).bert
    tables = embedding_tables(teacher)
    narrow = teacher.embeddings.narrow
    with torch.no_grad():
        entry = narrow.word_embeddings.weight[7] + narrow.position_embeddings.weight[0]
        entry = entry + narrow.token_type_embeddings.weight[0]
        norm = (entry.var(unbiased=False) + narrow.LayerNorm.eps).sqrt()
        summed = tables["word_embeddings"][7] + tables["position_embeddings"][0] + tables["token_type_embeddings"][0]
        shift = narrow.LayerNorm.bias - narrow.LayerNorm.weight * entry.mean() / norm
        wanted = teacher.embeddings(torch.tensor([[7]]), torch.tensor([[0]]))[0, 0]
    torch.testing.assert_close(summed / norm + teacher.embeddings.projection(shift), wanted, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_converted(tmp_path: Path) -> None:
    assert not is_like_bert(transformers.DebertaV2Config())
    assert not is_like_bert(transformers.ModernBertConfig())
    assert not is_like_bert(transformers.RobertaConfig(is_decoder=True))
