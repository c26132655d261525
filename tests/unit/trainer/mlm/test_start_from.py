"""`trainer mlm --start-from`: training continues exactly where a delta ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.embedded import embedded_encoder_path
from shared.embedded.delta import DELTA_PATH, embedded_masked_lm, read_delta
from shared.errors import ModelError, UsageError
from trainer.mlm.config import MlmConfig
from trainer.mlm.delta import save_delta, start_from_delta
from trainer.mlm.model import TrainableMaskedLM, load_trainable

ADAPTERS, EMBEDDING_RANK = 48, 48


@pytest.fixture(scope="module")
def model() -> TrainableMaskedLM:
    model = load_trainable(str(embedded_encoder_path()), EMBEDDING_RANK, ADAPTERS)
    start_from_delta(model, "embedded")
    return model.eval()


@torch.no_grad()
def test_training_starts_with_the_answers_of_the_delta(model: TrainableMaskedLM) -> None:
    shipped, tokenizer = embedded_masked_lm()
    ids = tokenizer(["the film was [MASK] .", "she lives in [MASK] ."], return_tensors="pt", padding=True)["input_ids"]
    lengths = torch.tensor([ids.shape[1]] * 2)
    ours = model.logits(model.hidden_states(ids, lengths))
    theirs = shipped(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    assert (ours - theirs).abs().max() < 1e-3 < theirs.std()


def test_saving_at_once_gives_the_same_delta(model: TrainableMaskedLM, tmp_path: Path) -> None:
    save_delta(model, tmp_path / "again.safetensors")
    shipped, again = load_file(DELTA_PATH), load_file(tmp_path / "again.safetensors")
    assert shipped.keys() == again.keys()
    assert all(torch.equal(shipped[name], again[name]) for name in shipped)


@pytest.mark.parametrize(("adapters", "embedding_rank"), [(32, 48), (48, 16), (48, 0)])
def test_other_ranks_are_refused_and_the_right_ones_named(adapters: int, embedding_rank: int) -> None:
    model = load_trainable(str(embedded_encoder_path()), embedding_rank, adapters)
    with pytest.raises(UsageError, match="continue with --adapters 48 --embedding-rank 48"):
        start_from_delta(model, "embedded")


def test_a_delta_that_cannot_be_used_is_named(model: TrainableMaskedLM, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.safetensors: no such file"):
        start_from_delta(model, str(tmp_path / "none.safetensors"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(DELTA_PATH.read_bytes()[:5000])
    with pytest.raises(ModelError, match="is no masked-LM delta"):
        read_delta(broken)


def test_start_from_needs_the_embedded_encoder_and_adapters() -> None:
    with pytest.raises(UsageError, match="needs --encoder embedded and --adapters"):
        MlmConfig.build({"corpus": ["x"], "output": "y", "start_from": "embedded"})
    with pytest.raises(UsageError, match="needs --encoder embedded and --adapters"):
        MlmConfig.build({"corpus": ["x"], "output": "y", "start_from": "f", "adapters": 4, "encoder": "hub/bert"})
