"""NaN and infinity in weights, vectors or scores are errors, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from augment_service.engine.batches import ModelInput
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from shared.errors import ModelError
from shared.model_folder import check_weights
from tests.support.models import save_random_model

BAD = (float("nan"), float("inf"), float("-inf"))


@pytest.fixture(scope="module", params=["bert-uncased", "modernbert"])
def masked_lm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaskedLM:
    """One model with a packed forward pass and one that runs through its own."""
    folder = save_random_model(request.param, tmp_path_factory.mktemp("model"))
    return MaskedLM.load(str(folder), "cpu", "fp32", 1)


def rank(masked_lm: MaskedLM, excluded: Any = None) -> Any:
    cls_id, mask_id = masked_lm.tokenizer.cls_token_id, masked_lm.tokenizer.mask_token_id
    return masked_lm.rank([ModelInput((cls_id, mask_id, 7, cls_id), (1, 2), 4)], [(0,)], 5, excluded)


def test_no_tensor_of_a_model_may_have_a_weight_that_is_not_finite(masked_lm: MaskedLM) -> None:
    model = masked_lm._model
    check_weights(model, "x", "--mlm")
    for number, (name, weight) in enumerate(model.named_parameters()):
        flat = weight.data.view(-1)
        place = (number * 7) % len(flat)
        kept = flat[place].item()
        flat[place] = BAD[number % 3]
        with pytest.raises(ModelError, match=rf"1 of {len(flat)} weights in .* are NaN or infinite"):
            check_weights(model, name, "--mlm")
        flat[place] = kept
    check_weights(model, "x", "--mlm")


@pytest.mark.parametrize("value", BAD)
def test_states_that_are_not_finite_are_an_error_and_not_fewer_candidates(
    masked_lm: MaskedLM, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    states = masked_lm._states

    def damaged(inputs: Any) -> torch.Tensor:
        found = states(inputs).clone()
        found[-1, 3] = value
        return found

    assert len(rank(masked_lm)) == 1
    monkeypatch.setattr(masked_lm, "_states", damaged)
    with pytest.raises(ModelError, match="NaN or infinite scores on cpu"):
        rank(masked_lm)
    with pytest.raises(ModelError, match="NaN or infinite"):
        masked_lm.check_output()


@pytest.mark.parametrize("value", BAD[:2])
def test_a_head_whose_scores_are_not_finite_is_an_error(
    masked_lm: MaskedLM, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    head = masked_lm._head

    def damaged(states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = head(states).clone()
        logits[0, -1] = value
        return logits

    monkeypatch.setattr(masked_lm, "_head", damaged)
    with pytest.raises(ModelError, match="NaN or infinite"):
        rank(masked_lm)


def test_excluded_entries_are_no_fault(masked_lm: MaskedLM) -> None:
    excluded = np.ones(masked_lm.vocab_size, np.bool_)
    excluded[[11, 12]] = False
    (ranking,) = rank(masked_lm, excluded)
    assert set(ranking.ids[0, :2].tolist()) == {11, 12}
    assert np.isneginf(ranking.scores[0, 2:]).all()


def test_the_check_at_load_counts_no_batch(masked_lm: MaskedLM) -> None:
    before = masked_lm.guard.batches
    masked_lm.check_output()
    assert masked_lm.guard.batches == before


@pytest.mark.parametrize("value", BAD)
def test_vectors_with_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setenv("AUGMENT_SERVICE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "vectors"
    folder.mkdir()
    matrix = np.ones((5, 3), np.float32)
    matrix[3, 1] = value
    np.save(folder / "emb.npy", matrix)
    pq.write_table(pa.table({"index": ["a", "b", "c", "dog", "e"]}), folder / "index.parquet")
    for _ in range(2):
        with pytest.raises(ModelError, match="the vector of 'dog' contains NaN or infinite numbers"):
            GloveVectors.load(str(folder))
    text = tmp_path / "glove.txt"
    text.write_text(f"a 1 2 3\nb 1 {value} 3\n", encoding="utf-8")
    with pytest.raises(ModelError, match="line 2"):
        GloveVectors.load(str(text))
