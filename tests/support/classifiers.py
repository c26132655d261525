"""Small random sequence classifiers of several architectures, with tokenizers of their own kind."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from tests.support.models import SMALL, save_random_model


def save_classifier_of(kind: str, folder: Path, labels: tuple[str, ...] = ("negative", "positive")) -> Path:
    """A random classifier (`roberta`, `deberta-v2`, `distilbert`, `electra`); one label: a regressor.

    Weights are large enough that the answer depends on the text. Returns the folder.
    """
    tokenizer_kind = "roberta" if kind == "roberta" else "bert-uncased"
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        save_random_model(tokenizer_kind, folder.with_name(folder.name + "-tokenizer"))
    )
    torch.manual_seed(23)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    common = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "num_labels": len(labels)} | names
    if kind == "roberta":
        config = transformers.RobertaConfig(**common, **SMALL, max_position_embeddings=66, type_vocab_size=1)
    elif kind == "deberta-v2":
        relative = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False}
        config = transformers.DebertaV2Config(**common, **SMALL, **relative, max_position_embeddings=64)
    elif kind == "electra":
        config = transformers.ElectraConfig(**common, **SMALL, embedding_size=16, max_position_embeddings=64)
    else:
        size = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}
        config = transformers.DistilBertConfig(**common, **size, max_position_embeddings=64)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
