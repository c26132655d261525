"""Parameters that decide the samples of a text, shared by the job, the service, the commands and the trainer."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from shared.cli.config import identity
from shared.protected import PROTECT_BY_DEFAULT, as_kinds_and_patterns, as_words

Conditioning = Literal["original", "sequential"]
Context = Literal["single", "pair", "unmasked"]
Words = Literal["reference", "all-letters", "all"]
TextForm = Literal["preserve", "reference"]
Filter = Literal["reference", "whole-words"]
Pairs = Literal["both", "each", "same"]
Case = Literal["match", "keep"]

STOP_WORDS_OF_MODE = ("<default>",)
"""Default of `stop_words`: the reference's list with `words = reference`, otherwise no list."""
REFERENCE_STOP_WORDS = ("<reference>",)
"""`stop_words` if set to `reference`: the reference's list, whatever `words` is."""


def _as_stop_words(value: Any) -> Any:
    if value in ("reference", ["reference"], ("reference",)):
        return REFERENCE_STOP_WORDS
    if value in ("none", ["none"], ("none",)):
        return ()
    if value in (list(STOP_WORDS_OF_MODE), list(REFERENCE_STOP_WORDS)):
        return tuple(value)
    return value if value in (STOP_WORDS_OF_MODE, REFERENCE_STOP_WORDS) else as_words(value)


Protect = Annotated[tuple[str, ...], BeforeValidator(as_kinds_and_patterns)]
WordList = Annotated[tuple[str, ...], BeforeValidator(as_words)]
StopWords = Annotated[tuple[str, ...], BeforeValidator(_as_stop_words)]


class AugmentParams(BaseModel):
    """Parameters of Algorithm 1 (arXiv 1909.10351), and switches between the paper and its released code."""

    group: ClassVar[str] = "Algorithm 1"

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    n_a: int = identity(20, "N_a: samples per source text.", ge=0, le=10_000)
    k: int = identity(15, "K: candidates per word.", ge=1, le=1_000)
    p_t: float = identity(0.4, "P_t: a word is replaced when its random number p <= P_t.", ge=0.0, le=1.0)
    seed: int = identity(0, "Seed for the random draws.", ge=0, lt=2**63)
    conditioning: Conditioning = identity(
        "original",
        "Propose candidates from the original text, or from the sample with its replacements so far (Algorithm 1 as "
        "printed).",
    )
    context: Context = identity(
        "single", "Masked LM input: the masked text; a pair of masked and original text; or the unmasked text (fast)."
    )
    words: Words = identity(
        "reference",
        "Words that may be replaced: [a-z]+ outside the stop list; words of letters only; everything but punctuation.",
    )
    text: TextForm = identity(
        "preserve", "Form of samples: replace words in the original string, or join normalised words by spaces."
    )
    filter: Filter = identity(
        "reference", "Candidates: the K best vocabulary entries without word continuations; or the K best whole words."
    )
    pairs: Pairs = identity(
        "both",
        "For text pairs: every sample may change both texts; samples change one text each, in turn; or both change, "
        "and a word that occurs in both gets the same replacement.",
    )
    case: Case = identity(
        "match",
        "With --text preserve: a new word takes the case of the word it replaces (Title, UPPER or lower), or keeps its "
        "own.",
    )
    protect: Protect = identity(
        PROTECT_BY_DEFAULT,
        "Never replace words inside these: any of urls, emails, html, mentions, numbers, separated by commas, or a "
        "regular expression; or none (default: urls,emails,html with --text preserve, otherwise none).",
        metavar="KINDS",
    )
    protect_words: WordList = identity(
        (), "Files of words that are never replaced, one word or phrase per line; case is ignored.", metavar="FILE"
    )
    stop_words: StopWords = identity(
        STOP_WORDS_OF_MODE,
        "Words that are never replaced because they carry little meaning: reference, none, or files with one word per "
        "line (default: reference with --words reference, otherwise none).",
        metavar="FILE",
    )

    @model_validator(mode="after")
    def _same_needs_candidates_of_the_original(self) -> Self:
        if self.pairs == "same" and self.conditioning == "sequential":
            raise ValueError(
                "--pairs same needs --conditioning original: with sequential, candidates depend on the preceding words"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Defaults of `text = reference`: no case matching, and no protection unless requested."""
        if not isinstance(values, dict) or values.get("text") != "reference":
            return values
        if values.get("case") == "match":
            raise ValueError(
                "--case match needs --text preserve: with --text reference, samples consist of normalised words"
            )
        return {"case": "keep", "protect": ()} | values
