"""Masked LMs of any family: the longest input is asked of the model, and answers are those of its own forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from augment_service.engine.augment import AugmentEngine
from augment_service.engine.masked_lm import MaskedLM
from shared.params import AugmentParams
from tests.support.models import save_random_model

LONGEST = 64
OFFSET_2 = {"max_position_embeddings": LONGEST + 2, "type_vocab_size": 1}
FAMILIES: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 16},
    "Camembert": OFFSET_2,
    "Data2VecText": OFFSET_2,
    "DebertaV2": {},
    "FNet": {},
    "Longformer": OFFSET_2 | {"attention_window": [32, 32]},
    "MPNet": OFFSET_2,
    "MobileBert": {"embedding_size": 32, "intra_bottleneck_size": 32, "true_hidden_size": 32},
    "Nystromformer": {},
    "Roberta": OFFSET_2,
    "RobertaPreLayerNorm": OFFSET_2,
    "XLMRobertaXL": OFFSET_2,
}
NO_SDPA = ("FNet", "DebertaV2", "Longformer")


class NoVectors:
    def nearest(self, words: Any, k: int) -> dict[str, tuple[tuple[str, float], ...]]:
        return dict.fromkeys(words, ())


def save_family(name: str, folder: Path) -> Any:
    """A small random masked LM of a family with the tokenizer of a small BERT; returns the model."""
    save_random_model("bert-uncased", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    common = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    common |= {"intermediate_size": 48, "max_position_embeddings": LONGEST, "pad_token_id": tokenizer.pad_token_id}
    if "max_position_embeddings" in FAMILIES[name]:
        # Of the RoBERTa family: positions begin behind the row of the padding token, which is token 1 there.
        common["pad_token_id"] = 1
    model = getattr(transformers, f"{name}ForMaskedLM")(
        getattr(transformers, f"{name}Config")(**common | FAMILIES[name])
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    model.eval().save_pretrained(folder)
    return model


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_family_answers_as_its_own_forward_pass_and_reads_long_texts(name: str, tmp_path: Path) -> None:
    model = save_family(name, tmp_path)
    loaded = MaskedLM.load(str(tmp_path), "cpu", "fp32")
    assert loaded.max_length == LONGEST
    engine = AugmentEngine(loaded, NoVectors(), AugmentParams(k=5))
    text = "the quick brown fox jumps over the lazy dog"
    lexicon = loaded.lexicon
    ids = [lexicon.cls_id, *loaded.tokenizer(text, add_special_tokens=False)["input_ids"], lexicon.sep_id]
    ranked = [one for one in engine.propose([text], 5)[0].proposals if one.origin == "mlm"]
    assert len(ranked) >= 3
    for one in ranked:
        assert one.position is not None
        masked = [*ids[: one.position], loaded.tokenizer.mask_token_id, *ids[one.position + 1 :]]
        with torch.no_grad():
            scores = model(input_ids=torch.tensor([masked])).logits[0, one.position]
        best = loaded.tokenizer.convert_ids_to_tokens(scores.topk(5).indices.tolist())
        assert [word for word, _ in one.ranked[:5]] == best
    long = engine.propose(["fox dog " * LONGEST], 5)[0]
    assert len([one for one in long.proposals if one.ranked]) == 2 * LONGEST


def test_architectures_without_fused_attention_are_tried_above() -> None:
    for name in NO_SDPA:
        assert not getattr(transformers, f"{name}ForMaskedLM")._supports_sdpa
