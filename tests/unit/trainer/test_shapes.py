"""Students of other shapes than their teacher: weighted embeddings, fitted projections, explained variance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.distillation import save_teacher
from trainer.config import StudentConfig
from trainer.data.batches import Batch
from trainer.data.token_file import TokenFile
from trainer.explained import unexplained_shares
from trainer.models import load_classifier
from trainer.shapes import fit_projections, token_frequencies
from trainer.student import Projections, StudentSize, new_student, principal_directions

MAPPING = (2, 4)


@pytest.fixture(scope="module")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_teacher(tmp_path_factory.mktemp("teacher") / "model")


def batches(count: int = 3) -> list[Batch]:
    made = []
    for seed in range(count):
        mask = torch.arange(9)[None] < torch.tensor([9, 4, 6, 7])[:, None]
        ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~mask, 0)
        made.append(
            Batch(
                input_ids=ids,
                token_type_ids=torch.zeros_like(ids),
                mask=mask,
                labels=torch.zeros(4),
                logits=None,
                keys=np.zeros((4, 2), np.int64),
                has_padding=True,
                row_share=1.0,
                piece_share=1.0,
                pair_share=1.0,
            )
        )
    return made


def test_frequencies_count_the_weighted_corpus() -> None:
    one = TokenFile(ids=np.asarray([3, 3, 5], np.int32), offsets=np.asarray([0, 2, 3]))
    two = TokenFile(ids=np.asarray([5], np.int32), offsets=np.asarray([0, 1]))
    assert token_frequencies([one, two], [1.0, 0.5], 7).tolist() == [0, 0, 0, 2, 0, 1.5, 0]


def test_weighted_directions_keep_frequent_rows() -> None:
    torch.manual_seed(0)
    table = torch.randn(50, 8)
    frequencies = torch.full((50,), 1e-6)
    frequencies[:3] = 1.0
    directions = principal_directions(table, 3, frequencies)
    kept = table @ directions @ directions.T
    assert torch.allclose(kept[:3], table[:3], atol=1e-3)
    assert torch.equal(principal_directions(table, 3, torch.ones(50)), principal_directions(table, 3))


@pytest.mark.parametrize("kind", ["shared", "per-layer"])
def test_fitted_projections_are_the_least_squares_solution(teacher_dir: Path, kind: str) -> None:
    teacher = load_classifier(str(teacher_dir)).eval().bert
    torch.manual_seed(1)
    student = new_student(StudentConfig(), StudentSize(2, 16, 32, 4), teacher, MAPPING, 2).bert
    projections = Projections(kind, 2, 16, 32)  # type: ignore[arg-type]
    before = unexplained_shares(student, teacher, projections, MAPPING, batches())
    fit_projections(projections, student, teacher, MAPPING, batches())
    fitted = unexplained_shares(student, teacher, projections, MAPPING, batches())
    assert all(fitted[name] < before[name] for name in ("embedding", "layer_1", "layer_2"))
    if kind == "per-layer":
        assert all(fitted[name] < 1 for name in ("embedding", "layer_1", "layer_2"))
    total = sum(fitted[name] for name in ("embedding", "layer_1", "layer_2"))
    with torch.no_grad():
        for weight in projections.parameters():
            weight.add_(1e-2 * torch.randn(weight.shape))
    moved = unexplained_shares(student, teacher, projections, MAPPING, batches())
    assert sum(moved[name] for name in ("embedding", "layer_1", "layer_2")) > total


def test_a_copy_of_the_teacher_explains_all_of_it(teacher_dir: Path) -> None:
    teacher = load_classifier(str(teacher_dir)).eval().bert
    projections = Projections("shared", 4, 32, 32)
    weight, bias = projections.parameters()
    with torch.no_grad():
        weight.copy_(torch.eye(32))
        bias.zero_()
    shares = unexplained_shares(teacher, teacher, projections, (1, 2, 3, 4), batches())
    assert list(shares) == ["embedding", "layer_1", "layer_2", "layer_3", "layer_4", "pooled"]
    assert max(shares.values()) < 1e-6
    with torch.no_grad():
        weight.zero_()
    assert min(unexplained_shares(teacher, teacher, projections, (1, 2, 3, 4), batches()).values()) >= 1
