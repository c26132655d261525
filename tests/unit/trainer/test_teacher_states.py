"""Whose states a student learns, by architecture and vocabulary; token types of tokenizers that name none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from shared.embedded import EMBEDDED, resolve_encoder
from shared.errors import ModelError
from tests.support.classifiers import save_classifier_of
from tests.support.distillation import save_other_teacher, save_teacher
from tests.support.models import save_random_model
from trainer.models import count_parameters, load_encoder, load_tokenizer, tokenizer_fingerprint, with_types
from trainer.scores import encode
from trainer.teacher_states import AUTO, gives_states, load_with_states, why_no_states

SIZE = "2,16,32,4"


@pytest.mark.parametrize("kind", ["electra", "electra-narrow", "distilbert", "roberta", "xlm-roberta", "camembert"])
def test_a_new_student_gets_the_vocabulary_and_the_states(kind: str, tmp_path: Path) -> None:
    teacher = str(save_classifier_of(kind, tmp_path / kind))
    assert gives_states(teacher, SIZE)
    assert gives_states(teacher, "1,16,32,4")
    # Its small vocabulary is not that of the embedded student.
    assert not gives_states(teacher, EMBEDDED)
    assert not gives_states(teacher, AUTO)


def test_the_embedded_student_learns_the_states_of_teachers_that_read_its_tokens(tmp_path: Path) -> None:
    for kind in ("electra-narrow", "distilbert"):
        folder, embedded = tmp_path / kind, resolve_encoder(EMBEDDED)
        teacher = str(save_classifier_of(kind, folder, tokenizer_of=embedded, layers=3))
        assert gives_states(teacher, EMBEDDED)
        assert gives_states(teacher, AUTO)
        # With fewer layers than the student it only answers, as before.
        shallow = str(save_classifier_of(kind, folder, tokenizer_of=embedded))
        assert why_no_states(shallow, EMBEDDED) == "the student has more layers"
        assert gives_states(shallow, SIZE)
        assert not gives_states(shallow, "3,16,32,4")


def test_a_saved_student_learns_the_states_of_teachers_that_know_its_tokens(tmp_path: Path) -> None:
    teacher = str(save_classifier_of("electra", tmp_path / "electra"))
    assert gives_states(teacher, str(save_teacher(tmp_path / "same", layers=2)))
    assert not gives_states(teacher, str(save_teacher(tmp_path / "deeper", layers=3)))
    assert not gives_states(teacher, str(save_random_model("bert-cased", tmp_path / "cased")))
    # A word that names nothing is refused where the student is made.
    assert gives_states(teacher, "nowhere")


def test_a_bert_always_gives_states_and_others_never_do(tmp_path: Path) -> None:
    bert, other = str(save_teacher(tmp_path / "bert")), str(save_other_teacher("deberta-v2", tmp_path / "deberta"))
    for student in (SIZE, EMBEDDED, AUTO):
        assert gives_states(bert, student)
        assert not gives_states(other, student)


def test_what_is_loaded_is_counted_and_named_as_it_is_stored(tmp_path: Path) -> None:
    plain, states, _ = load_with_states(str(save_classifier_of("roberta", tmp_path / "roberta", ("no", "yes", "so"))))
    assert plain.config.model_type == "roberta"
    assert states.config.id2label == plain.config.id2label == {0: "no", 1: "yes", 2: "so"}
    # The rows of the position table that RoBERTa never reads, and one type more.
    assert count_parameters(plain) == count_parameters(states) + (plain.config.pad_token_id + 1 - 1) * 32
    bert, same, _ = load_with_states(str(save_teacher(tmp_path / "bert")))
    assert bert is same


@pytest.mark.parametrize("kind", ["electra", "distilbert", "roberta", "xlm-roberta"])
def test_a_masked_lm_of_another_kind_is_an_encoder_to_learn_from(kind: str, tmp_path: Path) -> None:
    folder = save_random_model(kind, tmp_path / kind)
    tokenizer = load_tokenizer(str(folder))
    encoder = load_encoder(str(folder), tokenizer)
    plain = transformers.AutoModel.from_pretrained(folder).eval()
    ids = torch.tensor([tokenizer("the quick brown fox and a cat")["input_ids"]])
    with torch.no_grad():
        wanted = plain(ids, output_hidden_states=True).hidden_states
        found = encode(encoder, ids, torch.zeros_like(ids), None).hidden_states
    for own, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-5, rtol=0)
    other = save_random_model("modernbert", tmp_path / "other")
    with pytest.raises(ModelError, match="is a modernbert; distillation works with bert, electra, distilbert"):
        load_encoder(str(other), tokenizer)


def test_a_student_s_tokenizer_names_the_types_that_it_learned_with(tmp_path: Path) -> None:
    folder = save_random_model("distilbert", tmp_path / "model")
    vocabulary = transformers.AutoTokenizer.from_pretrained(folder).get_vocab()
    transformers.DistilBertTokenizer(vocab=vocabulary).save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    assert "token_type_ids" not in tokenizer("the movie", "a plot")
    before = tokenizer_fingerprint(tokenizer)
    with_types(tokenizer).save_pretrained(tmp_path / "student")
    transformers.BertConfig().save_pretrained(tmp_path / "student")
    assert tokenizer_fingerprint(tokenizer) == before
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "student")
    assert again("the movie", "a plot")["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    # One whose pairs are all of one type, such as a RoBERTa's, stays as it is.
    roberta = transformers.RobertaTokenizer()
    assert with_types(roberta).model_input_names == ["input_ids", "attention_mask"]


def test_pairs_give_the_teacher_no_types_that_its_tokenizer_does_not_name(tmp_path: Path) -> None:
    folder = save_classifier_of("electra", tmp_path / "electra")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    tokenizer.save_pretrained(tmp_path / "named")
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "named" / name).write_bytes((folder / name).read_bytes())
    for path, has_types in ((folder, False), (tmp_path / "named", True)):
        _, states, _ = load_with_states(str(path))
        table = states.bert.embeddings.token_type_embeddings.weight
        assert torch.equal(table[0], table[1]) != has_types
