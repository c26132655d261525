"""Vocabulary pruning: a student that keeps the tokens its data uses, and still reads any text.

The embedding table is most of a small student. A task uses a fraction of it; the parameters saved can go into wider
layers. All single characters stay, so WordPiece splits a word whose token was dropped into smaller ones. The kept
tokens are a subset of the teacher's: both read the same tokens, the teacher through an id map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from shared.errors import ModelError, UsageError

PREFIX = "##"
MAX_PARAMETERS = 3_000_000
"""`auto` keeps a student within this many parameters, the largest that the project promises."""
MIN_OCCURRENCES = 2
"""`auto` drops tokens that occur less often: one occurrence teaches an embedding next to nothing."""


@dataclass(frozen=True, slots=True)
class PrunedVocabulary:
    """`kept` (tokens,) int64: ids in the original vocabulary, ascending; a token's pruned id is its index here."""

    kept: Tensor

    def __len__(self) -> int:
        return len(self.kept)

    def to_original(self, ids: Tensor) -> Tensor:
        """Pruned ids -> the teacher's ids, same shape."""
        return self.kept.to(ids.device)[ids]


def shared_vocabulary(
    student_tokenizer: Any, teacher_tokenizer: Any, student: str, teacher: str
) -> PrunedVocabulary | None:
    """How a student's ids map to its teacher's; None when both are the same.

    student, teacher: names for messages. Raises ModelError when the teacher does not know all of the student's tokens.
    """
    own, theirs = student_tokenizer.get_vocab(), teacher_tokenizer.get_vocab()
    if own == theirs:
        return None
    foreign = [token for token in own if token not in theirs]
    if foreign or len(own) == len(theirs):
        example = foreign[0] if foreign else next(token for token in theirs if own.get(token) != theirs[token])
        raise ModelError(
            f"the student {student} and the teacher {teacher} have different vocabularies ({len(own)} and "
            f"{len(theirs)} tokens; they differ at {example!r}): a student must use its teacher's vocabulary or a "
            "subset of it"
        )
    return PrunedVocabulary(torch.tensor([theirs[token] for token in sorted(own, key=own.__getitem__)]))


def parse_prune_option(text: str) -> int | None:
    """`none` -> None, `auto` -> 0, or the number of tokens to keep. Raises UsageError."""
    if text == "none":
        return None
    if text == "auto":
        return 0
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--prune-vocabulary {text}: use auto, none, or the number of tokens to keep")
    return int(text)


def count_tokens(tokenizer: Any, texts: Iterable[str], chunk: int = 8192) -> NDArray[np.int64]:
    """(vocabulary,) int64: how often each token occurs in `texts`."""
    counts = np.zeros(len(tokenizer), np.int64)
    part: list[str] = []

    def add() -> None:
        if part:
            encoded = tokenizer(part, add_special_tokens=False, return_attention_mask=False, verbose=False)
            for ids in encoded["input_ids"]:
                np.add.at(counts, np.asarray(ids, np.int64), 1)
            part.clear()

    for text in texts:
        part.append(text)
        if len(part) == chunk:
            add()
    add()
    return counts


def choose_tokens(
    tokenizer: Any, counts: NDArray[np.int64], wanted: int, *, other_parameters: int, hidden: int
) -> PrunedVocabulary:
    """The special tokens, all single characters, and the most frequent tokens of the data.

    counts: (vocabulary,) occurrences; wanted: number of tokens, 0 for `auto`: those that occur MIN_OCCURRENCES times,
    as far as MAX_PARAMETERS allows; other_parameters: the student's weights without the word embeddings, which are
    `hidden` wide. Raises UsageError when `wanted` is too small, ModelError for tokenizers other than WordPiece.
    """
    tokens = _wordpiece_vocabulary(tokenizer)
    always = {index for token, index in tokens.items() if len(token.removeprefix(PREFIX)) == 1}
    always |= set(tokenizer.all_special_ids)
    if wanted and wanted < len(always):
        raise UsageError(
            f"--prune-vocabulary {wanted} is too small: special tokens and single characters already make up "
            f"{len(always)}, and some texts cannot be tokenized without them"
        )
    limit = wanted or max((MAX_PARAMETERS - other_parameters) // hidden, len(always))
    least = 1 if wanted else MIN_OCCURRENCES
    # The most frequent first; of equally frequent tokens the lower id, which is the same on every machine.
    by_frequency = np.lexsort((np.arange(len(counts)), -counts))
    frequent = [int(index) for index in by_frequency if counts[index] >= least and int(index) not in always]
    kept = sorted(always | set(frequent[: limit - len(always)]))
    return PrunedVocabulary(torch.tensor(kept, dtype=torch.int64))


def prune_tokenizer(tokenizer: Any, pruned: PrunedVocabulary) -> Any:
    """A plain `BertTokenizer` with the kept tokens in their original order; saves and loads like any other."""
    from transformers import BertTokenizer

    _wordpiece_vocabulary(tokenizer)
    names = tokenizer.convert_ids_to_tokens(pruned.kept.tolist())
    normalizer = tokenizer.backend_tokenizer.normalizer
    special = {name: str(value) for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    return BertTokenizer(
        vocab={token: index for index, token in enumerate(names)},
        do_lower_case=normalizer.lowercase,
        strip_accents=normalizer.strip_accents,
        tokenize_chinese_chars=normalizer.handle_chinese_chars,
        model_max_length=tokenizer.model_max_length,
        **special,
    )


def prune_student(student: Any, pruned: PrunedVocabulary) -> None:
    """Keep the rows of the kept tokens in the word embeddings of a `BertForSequenceClassification`, in place."""
    table = student.bert.embeddings.word_embeddings
    pad = int((pruned.kept == student.config.pad_token_id).nonzero().item())
    smaller = nn.Embedding(len(pruned), table.embedding_dim, padding_idx=pad)
    with torch.no_grad():
        smaller.weight.copy_(table.weight[pruned.kept])
    student.bert.embeddings.word_embeddings = smaller
    student.config.vocab_size = len(pruned)
    student.config.pad_token_id = pad


def coverage(pruned: PrunedVocabulary, counts: NDArray[np.int64]) -> float:
    """Share of the data's tokens that are kept whole; the others are split into smaller tokens."""
    total = int(counts.sum())
    return round(float(counts[pruned.kept.numpy()].sum()) / total, 5) if total else math.nan


def _wordpiece_vocabulary(tokenizer: Any) -> dict[str, int]:
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer

    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.model, WordPiece) or not isinstance(backend.normalizer, BertNormalizer):
        raise ModelError(
            "--prune-vocabulary needs a BERT WordPiece tokenizer, not "
            f"{type(backend.normalizer).__name__} and {type(backend.model).__name__}; use --prune-vocabulary none"
        )
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
