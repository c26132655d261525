"""Augmentation with models in this process, without Ray or HTTP: `from augment_service import Augmenter`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict, TypeVar, Unpack

from pydantic import BaseModel, ValidationError

from augment_service.config import CandidatesConfig, Device, Dtype
from augment_service.engine.augment import AugmentEngine
from augment_service.engine.batch_size import resolve_batch_tokens
from augment_service.engine.glove import GloveVectors
from augment_service.engine.masked_lm import MaskedLM
from augment_service.engine.presence import check_models_exist
from augment_service.service.answers import candidates_answer
from augment_service.service.responses import TextCandidateSets, TextSamples
from shared.errors import InputError, UsageError
from shared.inputs.rows import SourceRow
from shared.params import AugmentParams, Case, Conditioning, Context, Filter, Pairs, TextForm, Words
from shared.rendering import render_rows

TextOrPair = str | Sequence[str]
Model = TypeVar("Model", bound=BaseModel)

ROWS_PER_CALL = 512
"""Texts in memory at a time; the job's default number of rows per shard."""


class CandidateParams(TypedDict, total=False):
    """Parameters that decide a text's candidates; see `AugmentParams` for meanings and defaults."""

    k: int
    context: Context
    words: Words
    text: TextForm
    filter: Filter
    case: Case
    protect: Sequence[str] | str
    protect_words: Sequence[str]
    stop_words: Sequence[str] | Literal["reference", "none"]


class SampleParams(CandidateParams, total=False):
    """Parameters that decide a text's samples: all fields of `AugmentParams`."""

    n_a: int
    p_t: float
    seed: int
    conditioning: Conditioning
    pairs: Pairs


class Augmenter:
    """A masked LM and word vectors in this process. Loading takes seconds, so create one and reuse it.

    mlm: `embedded`, a folder, or a hub id such as google-bert/bert-base-uncased. glove: `embedded`, a file of GloVe or
    word2vec text (.gz too), or a folder with .npy; `glove_limit` uses only its first vectors. device: auto, cpu or
    cuda. dtype: precision of the encoder: fp32, bf16, or auto (bf16 where the hardware supports it). threads: CPU
    threads of the whole process (default: left as they are). batch_tokens: tokens per model batch
    (default: 1024 on a CPU; measured on a GPU).

    Raises UsageError for an argument that cannot be used here, ModelError for a model that cannot be loaded. An
    Augmenter must be used by one thread at a time.

    >>> from augment_service import Augmenter
    >>> augmenter = Augmenter("embedded", device="cpu", dtype="fp32")
    >>> result = augmenter.augment(["a gripping and honest film"], n_a=5, seed=7)[0]
    >>> len(result.samples)
    5
    """

    def __init__(
        self,
        mlm: str = "embedded",
        glove: str = "embedded",
        *,
        glove_limit: int | None = None,
        device: Device = "auto",
        dtype: Dtype = "auto",
        threads: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        given = {
            "mlm": mlm,
            "glove": glove,
            "glove_limit": glove_limit,
            "device": device,
            "dtype": dtype,
            "threads": threads,
            "batch_tokens": batch_tokens,
        }
        config = _checked(CandidatesConfig, given)
        check_models_exist(config.mlm, config.glove)
        self._masked_lm = MaskedLM.load(config.mlm, config.device, config.dtype, config.threads)
        self._vectors = GloveVectors.load(config.glove, config.glove_limit)
        self._batch_tokens = resolve_batch_tokens(config.batch_tokens, self._masked_lm)

    def augment(
        self, texts: Sequence[TextOrPair], *, first_id: int = 0, **parameters: Unpack[SampleParams]
    ) -> list[TextSamples]:
        """Samples of each text, in order: one result per text, with at most `n_a` samples.

        texts: strings, or pairs of strings that belong together. parameters: fields of `AugmentParams` (n_a, k, p_t,
        seed, conditioning, context, words, text, filter, case, protect, protect_words, stop_words, pairs), with its
        defaults. Text i has the source id
        `first_id` + i; the same text, id and parameters give the same samples as the job and the service.

        A sample has `text_a`, `text_b` (None for single texts) and `replaced`, the new words with their code points
        [start, end) in the sample's own text. `str(sample)` is its text, or both texts separated by a tab.

        Raises UsageError for a parameter that is unknown or out of range, InputError for a text that is empty or not
        a string.

        >>> pair = augmenter.augment([("Is it any good?", "It is a great movie.")], n_a=1, filter="whole-words")[0]
        >>> word = pair.samples[0].replaced[0]
        >>> getattr(pair.samples[0], word.column)[word.start : word.end] == word.candidate
        True
        """
        engine = self._engine(_checked(AugmentParams, parameters, SampleParams))
        results: list[TextSamples] = []
        for rows in _batches(_rows(texts, first_id)):
            found, samples = engine.samples(rows)
            for row, rendered in zip(rows, render_rows(found, samples), strict=True):
                results.append(TextSamples.model_validate({"id": row.source_id, "samples": rendered}))
        return results

    def candidates(self, texts: Sequence[TextOrPair], **parameters: Unpack[CandidateParams]) -> list[TextCandidateSets]:
        """Words of each text and their candidates, best first, in order.

        texts and errors: as in `augment`. parameters: k, context, words, text, filter, case, protect,
        protect_words, stop_words. A word that is never replaced
        has `origin` None and no candidates; `scores` are logits for origin mlm, cosines for glove.

        >>> words = augmenter.candidates(["a gripping and honest film"], k=3)[0].text_a.words
        >>> [(one.word, one.origin, len(one.candidates)) for one in words]
        [('a', None, 0), ('gripping', 'mlm', 3), ('and', None, 0), ('honest', 'mlm', 3), ('film', 'mlm', 3)]
        """
        engine = self._engine(_checked(AugmentParams, parameters, CandidateParams))
        results: list[TextCandidateSets] = []
        for rows in _batches(_rows(texts, 0)):
            columns = [[text for text in (row.text_a, row.text_b) if text is not None] for row in rows]
            found = iter(engine.propose([text for both in columns for text in both], protects=True))
            for both in columns:
                answer = candidates_answer(engine, [next(found) for _ in both])
                results.append(TextCandidateSets.model_validate(answer))
        return results

    def _engine(self, params: AugmentParams) -> AugmentEngine:
        return AugmentEngine(self._masked_lm, self._vectors, params, self._batch_tokens)


def _checked(model: type[Model], values: Mapping[str, Any], allowed: type | None = None) -> Model:
    """The validated values; `allowed` is a TypedDict with the names to accept. Raises UsageError."""
    names = [name for name in model.model_fields if allowed is None or name in allowed.__annotations__]
    for name in values:
        if name not in names:
            raise UsageError(f"unknown parameter {name!r}; the parameters are {', '.join(names)}")
    try:
        return model(**values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        message = str(problem["msg"]).removeprefix("Input ").removeprefix("Value error, ")
        if not problem["loc"]:
            raise UsageError(message) from error
        raise UsageError(f"{problem['loc'][0]}: got {problem['input']!r:.80}; {message}") from error


def _batches(rows: Sequence[SourceRow]) -> Iterator[Sequence[SourceRow]]:
    for start in range(0, len(rows), ROWS_PER_CALL):
        yield rows[start : start + ROWS_PER_CALL]


def _rows(texts: Sequence[TextOrPair], first_id: int) -> list[SourceRow]:
    """Raises UsageError when `texts` is not a list of texts, InputError naming the first unusable text."""
    if isinstance(texts, str | bytes):
        raise UsageError("texts: got a single string; pass a list of texts, such as [text]")
    return [_row(first_id + index, text, f"texts[{index}]") for index, text in enumerate(texts)]


def _row(source_id: int, text: TextOrPair, where: str) -> SourceRow:
    is_pair = isinstance(text, list | tuple) and len(text) == 2
    columns: list[Any] = list(text) if is_pair else [text]
    for column in columns:
        if not isinstance(column, str):
            raise InputError(f"{where}: got {column!r:.60}; expected a string or a pair of strings")
        if not column.strip():
            raise InputError(f"{where} is empty; remove empty texts")
        if any("\ud800" <= letter <= "\udfff" for letter in column):
            raise InputError(f"{where} contains a lone surrogate, which is not valid Unicode text")
    return SourceRow(source_id, columns[0], columns[1] if is_pair else None)
