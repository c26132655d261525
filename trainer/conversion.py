"""Converts encoders that compute the same as BERT under other names to BERT models.

ELECTRA, DistilBERT and the RoBERTa family differ from BERT in their embeddings and in the head of their classifiers:
RoBERTa starts counting positions after its padding id, DistilBERT has no token types, a small ELECTRA widens its
embeddings with a linear map. The layers are the same, so the weights go into a `BertModel`, and everything that reads a
BERT's hidden states reads theirs at the same speed. Nothing is copied: both models share their weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import BertEmbeddings

from trainer.scores import ATTENTION

WITH_OFFSET = ("roberta", "xlm-roberta", "camembert")
KINDS = ("electra", "distilbert", *WITH_OFFSET)
"""Values of `model_type`."""
NUM_TYPES = 2
TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")

_DISTILBERT = {
    "transformer.layer": "encoder.layer",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
_DISTILBERT_EPS = 1e-12
_HEAD = {"pre_classifier": "bert.pooler.dense", "classifier.dense": "bert.pooler.dense"}
_HEAD |= {"classifier.out_proj": "classifier", "classifier": "classifier"}
"""Module of a classification head -> its name in BERT. All heads read the first token, as BERT's pooler does."""


class ProjectedEmbeddings(nn.Module):
    """Embeddings that are narrower than the layers, and the linear map between the two."""

    def __init__(self, narrow: BertEmbeddings, width: int) -> None:
        super().__init__()
        self.narrow = narrow
        self.projection = nn.Linear(narrow.word_embeddings.embedding_dim, width)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """(B, L) int64 both -> (B, L, d)."""
        widened: Tensor = self.projection(self.narrow(input_ids=input_ids, token_type_ids=token_type_ids))
        return widened


def is_like_bert(config: Any) -> bool:
    """Whether a model with this configuration can be converted."""
    return config.model_type in KINDS and not getattr(config, "is_decoder", False)


def as_bert(classifier: Any, names_types: bool) -> Any:
    """A `BertForSequenceClassification` in eval mode with the hidden states and logits of another classifier in fp32.

    classifier: of one of KINDS, on the CPU. names_types: whether its tokenizer returns token types; if not, plain
    transformers treats every token as type 0.
    """
    encoder, own = classifier.base_model, classifier.config
    weights = {f"bert.{name}": value for name, value in _encoder_weights(encoder, names_types).items()}
    prefix = f"{classifier.base_model_prefix}."
    for name, value in classifier.state_dict().items():
        if not name.startswith(prefix):
            module, _, kind = name.rpartition(".")
            weights[f"{_HEAD[module]}.{kind}"] = value
    config = _config(encoder)
    config.id2label, config.label2id, config.problem_type = own.id2label, own.label2id, own.problem_type
    with torch.device("meta"):
        model = BertForSequenceClassification(config)
        _widen(model.bert, own)
    activations = {"electra": GELUActivation, "distilbert": nn.ReLU}
    model.bert.pooler.activation = activations.get(own.model_type, nn.Tanh)()
    return _filled(model, weights)


def as_bert_encoder(encoder: Any, names_types: bool) -> Any:
    """A `BertModel` without pooler, in eval mode, with the hidden states of another encoder. See `as_bert`."""
    with torch.device("meta"):
        model = BertModel(_config(encoder), add_pooling_layer=False)
        _widen(model, encoder.config)
    return _filled(model, _encoder_weights(encoder, names_types))


def embedding_tables(encoder: Any) -> dict[str, Tensor]:
    """The weights of TABLES by name, (rows, d) fp32 each, at the width of the layers. encoder: a `BertModel`.

    If the embeddings are narrower, a row is its entry's contribution to the hidden states, up to the factor of the
    norm.
    """
    embeddings = encoder.embeddings
    if not isinstance(embeddings, ProjectedEmbeddings):
        return {name: getattr(embeddings, name).weight.detach().float() for name in TABLES}
    scale = embeddings.narrow.LayerNorm.weight.detach().float()
    widen = (embeddings.projection.weight.detach().float() * scale).T
    return {name: getattr(embeddings.narrow, name).weight.detach().float() @ widen for name in TABLES}


def _config(encoder: Any) -> BertConfig:
    own = encoder.config
    is_distilbert = own.model_type == "distilbert"
    return BertConfig(
        vocab_size=own.vocab_size,
        hidden_size=own.hidden_size,
        num_hidden_layers=own.num_hidden_layers,
        num_attention_heads=own.num_attention_heads,
        intermediate_size=own.hidden_dim if is_distilbert else own.intermediate_size,
        hidden_act=own.activation if is_distilbert else own.hidden_act,
        max_position_embeddings=own.max_position_embeddings - _offset(own),
        type_vocab_size=max(NUM_TYPES, 0 if is_distilbert else own.type_vocab_size),
        layer_norm_eps=_DISTILBERT_EPS if is_distilbert else own.layer_norm_eps,
        pad_token_id=own.pad_token_id,
        name_or_path=own._name_or_path,
        attn_implementation=ATTENTION,
    )


def _offset(config: Any) -> int:
    """Rows of the position table before the first token's."""
    return config.pad_token_id + 1 if config.model_type in WITH_OFFSET else 0


def _embedding_width(config: Any) -> int:
    return int(config.embedding_size if config.model_type == "electra" else config.hidden_size)


def _widen(bert: Any, own: Any) -> None:
    """Give a BERT the narrower embeddings that an ELECTRA may have."""
    if (width := _embedding_width(own)) != bert.config.hidden_size:
        narrow = BertConfig(**(bert.config.to_dict() | {"hidden_size": width}))
        bert.embeddings = ProjectedEmbeddings(BertEmbeddings(narrow), bert.config.hidden_size)


def _encoder_weights(encoder: Any, names_types: bool) -> Mapping[str, Tensor]:
    """The weights by their names in a `BertModel` without pooler."""
    own = encoder.config
    weights = {name: value for name, value in encoder.state_dict().items() if not name.startswith("pooler.")}
    if own.model_type == "distilbert":
        weights = {_renamed(name, _DISTILBERT): value for name, value in weights.items()}
    positions, types = (f"embeddings.{name}.weight" for name in TABLES[1:])
    weights[positions] = weights[positions][_offset(own) :]
    table = weights.get(types, weights[positions].new_zeros(1, _embedding_width(own)))
    # A second type equal to the first, if the model has one type or none, or never receives types.
    weights[types] = table if names_types and len(table) > 1 else table[:1].repeat(max(NUM_TYPES, len(table)), 1)
    if _embedding_width(own) != own.hidden_size:
        names = {"embeddings.": "embeddings.narrow.", "embeddings_project.": "embeddings.projection."}
        weights = {_renamed(name, names): value for name, value in weights.items()}
    return weights


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for old, new in names.items():
        if name.startswith(old) or f".{old}." in name:
            name = name.replace(old, new, 1)
    return name


def _filled(model: Any, weights: Mapping[str, Tensor]) -> Any:
    """Load all weights into a model created on the meta device."""
    model.load_state_dict(weights, strict=True, assign=True)
    for module in model.modules():
        if isinstance(module, BertEmbeddings):
            module.position_ids = torch.arange(module.position_embeddings.num_embeddings).expand((1, -1))
            module.token_type_ids = torch.zeros_like(module.position_ids)
    return model.eval()
