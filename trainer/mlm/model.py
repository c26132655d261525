"""A BERT encoder with a trainable masked-LM head and a low-rank change of its tied embeddings.

The head is BERT's (transform, layer norm, tied decoder, bias). A new head starts as the identity with log token
frequencies as bias, so that its first predictions are a unigram model. The embedding table of a small encoder is half
of its weights; changing it only by A B, with A (V, r) and B (r, hidden), keeps the delta to ship small and trains
faster than the whole table. V: size of the vocabulary. Limitation: BERT only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, BertConfig, BertForMaskedLM, BertModel
from transformers.utils import logging as transformers_logging

from shared.errors import ModelError
from shared.model_folder import check_weights, model_folder, reading_model
from trainer.mlm.functions import low_rank_linear, tied_cross_entropy

LINEAR_LAYERS = ["query", "key", "value", "dense"]
ATTENTION = "eager"
"""At these lengths two batched products beat the fused kernel, whose backward pass is slow on CPUs (20% of a step)."""


class TrainableMaskedLM(nn.Module):
    """Encoder, low-rank embedding change and head; `forward` computes the loss at the masked positions only."""

    def __init__(self, encoder: BertModel, head: dict[str, Tensor] | None, embedding_rank: int) -> None:
        super().__init__()
        config = encoder.config
        self.encoder = encoder
        self.table = encoder.embeddings.word_embeddings.weight
        self.table.requires_grad_(False)
        self.embedding_rank = embedding_rank
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        with torch.no_grad():
            self.transform.weight.copy_(torch.eye(config.hidden_size))
            self.transform.bias.zero_()
            # A tied table and normalised states give logits of scale sqrt(hidden): far too confident at the start.
            self.norm.weight.fill_(1.0 / math.sqrt(float(self.table.pow(2).sum(1).mean())) / 2)
        self.has_head = head is not None
        if head is not None:
            self.transform.load_state_dict({"weight": head["dense.weight"], "bias": head["dense.bias"]})
            self.norm.load_state_dict({"weight": head["norm.weight"], "bias": head["norm.bias"]})
            self.bias.data.copy_(head["bias"])
        self.delta_a = nn.Parameter(torch.zeros(config.vocab_size, max(embedding_rank, 1)))
        self.delta_b = nn.Parameter(torch.randn(max(embedding_rank, 1), config.hidden_size) * 0.02)
        if embedding_rank == 0:
            self.delta_a.requires_grad_(False)
            self.delta_b.requires_grad_(False)

    def set_unigram_bias(self, ids: Iterable[NDArray[np.int32]]) -> None:
        """Initialise a new head from token frequencies (add-one smoothing). ids: token ids of the corpus."""
        counts = np.ones(self.bias.shape[0])
        for part in ids:
            counts += np.bincount(part, minlength=len(counts))
        log_share = np.log(counts / counts.sum())
        self.bias.data.copy_(torch.from_numpy(log_share - log_share.mean()).float())

    def hidden_states(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """(B, L) ids and (B,) lengths -> (B, L, hidden) output of the last layer."""
        embedded = functional.embedding(ids, self.table)
        if self.embedding_rank:
            embedded = embedded + functional.embedding(ids, self.delta_a) @ self.delta_b
        mask = None
        if bool((lengths != ids.shape[1]).any()):
            mask = (torch.arange(ids.shape[1], device=ids.device)[None, :] < lengths[:, None]).long()
        states: Tensor = self.encoder(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        return states

    def _transformed(self, states: Tensor) -> Tensor:
        transformed: Tensor = self.norm(functional.gelu(self.transform(states)))
        return transformed

    def logits(self, states: Tensor) -> Tensor:
        """(P, hidden) states -> (P, V) logits."""
        transformed = self._transformed(states)
        scores = functional.linear(transformed, self.table, self.bias)
        if self.embedding_rank:
            scores = scores + (transformed @ self.delta_b.t()) @ self.delta_a.t()
        return scores

    def forward(self, ids: Tensor, lengths: Tensor, positions: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy at flat `positions` (P,) of the (B, L) batch; negative `labels` (P,) are ignored."""
        states = self.hidden_states(ids, lengths)
        asked = states.reshape(-1, states.shape[-1]).index_select(0, positions)
        a, b = (self.delta_a, self.delta_b) if self.embedding_rank else (None, None)
        return tied_cross_entropy(self._transformed(asked), self.table, self.bias, a, b, labels)

    def merged(self) -> BertForMaskedLM:
        """A plain `BertForMaskedLM` with the same predictions, in fp32."""
        config = BertConfig(**self.encoder.config.to_dict())
        config.architectures = ["BertForMaskedLM"]
        config.tie_word_embeddings = True
        plain = BertForMaskedLM(config)
        table = self.table.detach().float()
        if self.embedding_rank:
            table = table + self.delta_a.detach().float() @ self.delta_b.detach().float()
        encoder = {name: value.detach().float() for name, value in _merged_encoder(self.encoder).items()}
        encoder["embeddings.word_embeddings.weight"] = table
        plain.bert.load_state_dict(encoder, strict=False)
        head = plain.cls.predictions
        head.transform.dense.load_state_dict(self.transform.state_dict())
        head.transform.LayerNorm.load_state_dict(self.norm.state_dict())
        head.decoder.weight = plain.bert.embeddings.word_embeddings.weight
        head.bias.data.copy_(self.bias.detach())
        head.decoder.bias = head.bias
        return plain.eval()


def load_trainable(path: str, embedding_rank: int, adapters: int) -> TrainableMaskedLM:
    """The model to train, from a folder or hub id. Raises ModelError when it is not a BERT.

    An encoder without a head gets a new one; a masked LM keeps its own.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    path = model_folder(path, "--encoder")
    with reading_model(path, "--encoder"):
        config = AutoConfig.from_pretrained(path)
    if config.model_type != "bert":
        raise ModelError(f"--encoder {path} is a {config.model_type}; `trainer mlm` adapts only BERT encoders")
    # Dropout only slows down a run that sees its text about once.
    options: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options |= {"dtype": torch.float32, "attn_implementation": ATTENTION, "output_loading_info": True}
    options["ignore_mismatched_sizes"] = True  # check_weights reports them
    head = None
    if any("MaskedLM" in name or "PreTraining" in name for name in config.architectures or []):
        with reading_model(path, "--encoder"):
            whole, problems = BertForMaskedLM.from_pretrained(path, **options)
        check_weights(whole, path, "--encoder", problems, ("cls.",))
        encoder, predictions = whole.bert, whole.cls.predictions
        head = {
            "dense.weight": predictions.transform.dense.weight.detach(),
            "dense.bias": predictions.transform.dense.bias.detach(),
            "norm.weight": predictions.transform.LayerNorm.weight.detach(),
            "norm.bias": predictions.transform.LayerNorm.bias.detach(),
            "bias": predictions.bias.detach(),
        }
    else:
        with reading_model(path, "--encoder"):
            encoder, problems = BertModel.from_pretrained(path, add_pooling_layer=False, **options)
        check_weights(encoder, path, "--encoder", problems)
    if adapters:
        from peft import LoraConfig, inject_adapter_in_model

        lora = LoraConfig(r=adapters, lora_alpha=adapters, target_modules=LINEAR_LAYERS)
        lora._register_custom_module({nn.Linear: _adapted_linear()})
        encoder = inject_adapter_in_model(lora, encoder)
    return TrainableMaskedLM(encoder, head, embedding_rank)


def _adapted_linear() -> type[nn.Module]:
    """peft's adapted linear layer, computed as a single product with the merged weight."""
    from peft.tuners.lora import Linear as LoraLinear

    class AdaptedLinear(LoraLinear):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            base = self.get_base_layer()
            first, second = self.lora_A["default"].weight, self.lora_B["default"].weight
            return low_rank_linear(x, base.weight, base.bias, first, second, self.scaling["default"])

    return AdaptedLinear


def _merged_encoder(encoder: nn.Module) -> dict[str, Tensor]:
    """The encoder's weights under their plain names, with adapters merged."""
    from peft.tuners.lora import Linear as LoraLinear

    adapted = {name: module for name, module in encoder.named_modules() if isinstance(module, LoraLinear)}
    weights: dict[str, Tensor] = {}
    for name, value in encoder.state_dict().items():
        if ".lora_" in name:
            continue
        owner = name.rsplit(".base_layer.", 1)[0]
        if owner in adapted and name.endswith("base_layer.weight"):
            value = value + adapted[owner].get_delta_weight("default")
        weights[name.replace(".base_layer.", ".")] = value
    return weights
