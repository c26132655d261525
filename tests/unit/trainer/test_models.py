"""Students: sizes, initialisation and vocabularies; what a teacher's outputs mean."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from shared.errors import ModelError, UsageError
from tests.support.distillation import save_teacher
from tests.support.models import save_random_model
from trainer.config import StudentConfig
from trainer.data.tasks import TaskSpec
from trainer.models import count_parameters, load_classifier, load_tokenizer, save_classifier, teacher_spec
from trainer.result import RunResult
from trainer.student import (
    Projections,
    StudentSize,
    load_student,
    make_projections,
    new_student,
    parse_size,
    principal_directions,
    read_projections,
)
from trainer.vocabulary import shared_vocabulary


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "model")


def test_the_paper_s_student_has_the_paper_s_number_of_parameters() -> None:
    size = parse_size("tinybert4")
    assert size == StudentSize(4, 312, 1200, 12)
    base = transformers.BertConfig()
    with torch.device("meta"):
        teacher = transformers.BertModel(base)
        student = new_student(StudentConfig(embedding_init="random"), size, teacher, (3, 6, 9, 12), 2)
    assert count_parameters(student) == pytest.approx(14.5e6, rel=0.015)
    assert count_parameters(teacher) / count_parameters(student) > 7.5


def test_sizes_by_numbers() -> None:
    assert parse_size("3,84,336,12") == StudentSize(3, 84, 336, 12)
    assert parse_size("some/folder") is None
    with pytest.raises(UsageError, match="not a multiple of 12 heads"):
        parse_size("3,85,336,12")
    with pytest.raises(UsageError, match="at least 1"):
        parse_size("0,84,336,12")


def test_principal_directions_lose_least() -> None:
    torch.manual_seed(0)
    table = torch.randn(200, 3) @ torch.randn(3, 12) + 0.01 * torch.randn(200, 12)
    directions = principal_directions(table, 3)
    assert torch.allclose(directions.T @ directions, torch.eye(3), atol=1e-5)
    lost = (table - table @ directions @ directions.T).norm() / table.norm()
    assert lost < 0.02
    values = torch.linalg.svdvals(table)
    assert (table - table @ directions @ directions.T).norm() == pytest.approx(values[3:].norm().item(), rel=1e-3)


def test_a_student_as_wide_as_its_teacher_can_start_from_its_layers(teacher_dir: Path) -> None:
    teacher = load_classifier(str(teacher_dir))
    config = StudentConfig(layer_init="teacher", embedding_init="random")
    student = new_student(config, StudentSize(2, 32, 64, 4), teacher.bert, (2, 4), 2)
    for own, source in zip(student.bert.encoder.layer, (1, 3), strict=True):
        theirs = teacher.bert.encoder.layer[source]
        assert torch.equal(own.output.dense.weight, theirs.output.dense.weight)
    with pytest.raises(UsageError, match="as wide as its teacher"):
        new_student(config, StudentSize(2, 16, 64, 4), teacher.bert, (2, 4), 2)
    with pytest.raises(UsageError, match="no wider than its teacher"):
        new_student(StudentConfig(), StudentSize(2, 64, 64, 4), teacher.bert, (2, 4), 2)


def test_weights_begin_at_aligned_addresses_however_they_were_saved(teacher_dir: Path) -> None:
    addresses = [weight.data_ptr() for weight in load_classifier(str(teacher_dir)).parameters()]
    assert {address % 64 for address in addresses} == {0}


def test_a_different_vocabulary_is_refused(teacher_dir: Path, tmp_path: Path) -> None:
    other = load_tokenizer(str(save_random_model("bert-chinese", tmp_path / "other")))
    own = load_tokenizer(str(teacher_dir))
    assert shared_vocabulary(own, own, "a", "b") is None
    other.add_tokens(["something-new"])
    with pytest.raises(ModelError, match="different vocabularies"):
        shared_vocabulary(other, own, "student", "teacher")


def test_a_saved_student_keeps_weights_and_projections_but_not_as_part_of_the_model(
    teacher_dir: Path, tmp_path: Path
) -> None:
    teacher = load_classifier(str(teacher_dir))
    student = new_student(StudentConfig(), StudentSize(2, 16, 32, 4), teacher.bert, (2, 4), 2)
    spec = TaskSpec(name="SST-2", labels=("0", "1"), metrics=("accuracy",))
    save_classifier(student, load_tokenizer(str(teacher_dir)), spec, tmp_path / "model", RunResult(command="task"), {})
    projections = Projections("per-layer", 2, 16, 32)
    projections.save(tmp_path / "model")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert plain.config.id2label == {0: "0", 1: "1"}
    assert plain.state_dict().keys() == student.state_dict().keys()
    again = load_student(str(tmp_path / "model"), 3, 0.25)
    assert again.classifier.out_features == 3
    assert torch.equal(
        again.bert.encoder.layer[1].output.dense.weight, student.bert.encoder.layer[1].output.dense.weight
    )
    assert again.bert.embeddings.dropout.p == 0.25
    found = read_projections(tmp_path / "model")
    # Maps that fit say themselves whether they are shared; others are replaced by new ones of the wanted kind.
    again_maps = make_projections("shared", 2, 16, 32, found)
    assert torch.equal(again_maps.state_dict()["maps.2.weight"], projections.state_dict()["maps.2.weight"])
    assert len(make_projections("shared", 3, 16, 32, found).maps) == 1
    assert read_projections(tmp_path) == {}
    assert len(projections.w_h(2)) == 2
    shared = Projections("shared", 2, 16, 32)
    assert shared.w_h(2) == [shared.w_e, shared.w_e]


def test_what_a_teacher_s_outputs_mean(tmp_path: Path, teacher_dir: Path) -> None:
    teacher = load_classifier(str(teacher_dir))
    assert teacher_spec(teacher, "SST-2", "t").labels == ("0", "1")
    assert teacher_spec(teacher, None, "t").metrics == ("accuracy", "f1_macro")
    teacher.config.id2label = {0: "1", 1: "0"}
    # The labels of the task in another order: the model's order decides.
    assert teacher_spec(teacher, "SST-2", "t").labels == ("1", "0")
    with pytest.raises(ModelError, match="needs 3 classes"):
        teacher_spec(teacher, "MNLI", "t")
    with pytest.raises(ModelError, match=r"needs one number \(regression\)"):
        teacher_spec(teacher, "STS-B", "t")
    scorer = load_classifier(str(save_teacher(tmp_path / "scorer", labels=1)))
    assert teacher_spec(scorer, "STS-B", "t").labels is None
    with pytest.raises(ModelError, match="not a sequence classification model"):
        load_classifier(str(save_random_model("bert-uncased", tmp_path / "mlm")))
    with pytest.raises(ModelError, match="is a roberta"):
        load_classifier(str(save_random_model("roberta", tmp_path / "roberta")))
