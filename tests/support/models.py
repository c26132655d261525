"""Small real models with random weights, built from configurations, for every architecture the engine supports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = [
    "the quick brown fox jumps over the lazy dog and the cat sat near a small river",
    "a great movie with a good plot , bad acting and a terrible ending , she said",
    "ein sehr guter Film mit schönen Bildern und einem schlechten Ende",
    "这部电影很好看 我喜欢这个故事 演员也很好",
    "Paris London Berlin are large cities in Europe and people live there happily",
] * 4
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
KINDS = ("bert-uncased", "bert-cased", "bert-chinese", "distilbert", "electra", "roberta", "xlm-roberta", "modernbert")


def save_random_model(kind: str, folder: Path, max_length: int = 64, num_heads: int = 4) -> Path:
    """A small tokenizer of the given kind and a random masked LM, the same in every process; returns the folder."""
    torch.manual_seed(7)
    tokenizer = _tokenizer(kind)
    model = _model(kind, len(tokenizer), tokenizer.pad_token_id, max_length, num_heads)
    with torch.no_grad():
        for weight in model.parameters():
            # Larger than the usual initialisation, so that answers depend on the context and a missing bias shows.
            weight.add_(torch.randn_like(weight) * 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_random_vectors(path: Path, size: int = 8) -> Path:
    """GloVe text with the words of TEXT, and some that a small vocabulary does not contain as a single token."""
    torch.manual_seed(3)
    words = list(dict.fromkeys([*" ".join(TEXT).lower().split(), "cinematography", "masterpiece", "honestly"]))
    rows = torch.randn(len(words), size).tolist()
    lines = [word + " " + " ".join(f"{value:.5f}" for value in row) for word, row in zip(words, rows, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _tokenizer(kind: str) -> Any:
    if kind in ("roberta", "modernbert"):
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet)
        backend.train_from_iterator(TEXT, trainer)
    elif kind == "xlm-roberta":
        backend = Tokenizer(models.Unigram(_unigrams(), unk_id=1))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
    else:
        normalizer = normalizers.BertNormalizer(lowercase=kind != "bert-cased")
        backend = Tokenizer(models.WordPiece(_word_pieces(normalizer), unk_token="[UNK]"))
        backend.normalizer = normalizer
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def _word_pieces(normalizer: Any) -> dict[str, int]:
    """The words of TEXT, their letters, and two letters that continue a word.

    Not by `WordPieceTrainer`: its pieces, and so the weights of each, would be others in each process.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    words = {word for text in TEXT for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = set("".join(words))
    pairs = {f"##{word[i : i + 2]}" for word in words for i in range(1, len(word) - 1)}
    pieces = [*SPECIAL, *sorted(letters | {f"##{letter}" for letter in letters} | words | pairs)]
    return {piece: index for index, piece in enumerate(pieces)}


def _unigrams() -> list[tuple[str, float]]:
    """Pieces as the trainer finds them, but in one order: rare letters get theirs by chance."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=SPECIAL, unk_token="[UNK]")
    backend.train_from_iterator(TEXT, trainer)
    found = [(piece, round(score, 2)) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]
    special, pieces = found[: len(SPECIAL)], found[len(SPECIAL) :]
    return special + sorted(pieces, key=lambda one: (-one[1], one[0]))


def _model(kind: str, size: int, pad: int, max_length: int, num_heads: int) -> Any:
    small = SMALL | {"num_attention_heads": num_heads}
    common = {"vocab_size": size, "pad_token_id": pad, "max_position_embeddings": max_length}
    if kind.startswith("bert"):
        return transformers.BertForMaskedLM(transformers.BertConfig(**common, **small))
    if kind == "distilbert":
        config = transformers.DistilBertConfig(**common, dim=32, n_layers=2, n_heads=num_heads, hidden_dim=48)
        return transformers.DistilBertForMaskedLM(config)
    if kind == "electra":
        return transformers.ElectraForMaskedLM(transformers.ElectraConfig(**common, **small, embedding_size=16))
    if kind == "modernbert":
        ids = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        config = transformers.ModernBertConfig(**common, **small, **ids, attn_implementation="sdpa")
        return transformers.ModernBertForMaskedLM(config)
    common["max_position_embeddings"] = max_length + 2
    if kind == "roberta":
        return transformers.RobertaForMaskedLM(transformers.RobertaConfig(**common, **small, type_vocab_size=1))
    return transformers.XLMRobertaForMaskedLM(transformers.XLMRobertaConfig(**common, **small, type_vocab_size=1))
