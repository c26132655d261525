"""Small random sequence classifiers of several architectures, with tokenizers of their own kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.support.models import SMALL, save_random_model


def save_classifier_of(
    kind: str,
    folder: Path,
    labels: tuple[str, ...] = ("negative", "positive"),
    tokenizer_of: str | None = None,
    layers: int = 2,
) -> Path:
    """A random classifier of one architecture; one label: a regressor.

    kind: roberta, xlm-roberta, camembert, deberta-v2, distilbert, electra, or electra-narrow, whose embeddings are
    narrower than its layers. tokenizer_of: a folder whose tokenizer it reads with (default: a small one of its kind).
    Weights are large enough that the answer depends on the text. Returns the folder.
    """
    of_roberta = kind in ("roberta", "xlm-roberta", "camembert")
    tokenizer_kind = "roberta" if of_roberta else "bert-uncased"
    if tokenizer_of is None:
        tokenizer_of = str(save_random_model(tokenizer_kind, folder.with_name(folder.name + "-tokenizer")))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_of)
    torch.manual_seed(23)
    small = SMALL | {"num_hidden_layers": layers}
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": len(labels)} | names
    if of_roberta:
        # Positions begin behind the row of the padding token, whatever its id.
        positions = 64 + tokenizer.pad_token_id + 1
        sizes = small | {"max_position_embeddings": positions, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
        config: Any = transformers.AutoConfig.for_model(kind, **common, **sizes)
    elif kind == "deberta-v2":
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        config = transformers.DebertaV2Config(**common, **small, **relative, max_position_embeddings=64)
    elif kind in ("electra", "electra-narrow"):
        width = 16 if kind == "electra-narrow" else SMALL["hidden_size"]
        config = transformers.ElectraConfig(**common, **small, embedding_size=width, max_position_embeddings=64)
    else:
        size = {"dim": 32, "n_layers": layers, "n_heads": 4, "hidden_dim": 48}
        config = transformers.DistilBertConfig(**common, **size, max_position_embeddings=64)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
