"""Parameters that decide the samples of a text, shared by the job, the service, the commands and the trainer."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from shared.cli.config import identity

Conditioning = Literal["original", "sequential"]
Context = Literal["single", "pair", "unmasked"]
Words = Literal["reference", "all-letters", "all"]
TextForm = Literal["preserve", "reference"]
Filter = Literal["reference", "whole-words"]
Pairs = Literal["both", "each"]


class AugmentParams(BaseModel):
    """Parameters of Algorithm 1 (arXiv 1909.10351), and switches between the paper and its released code."""

    group: ClassVar[str] = "Algorithm 1"

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, protected_namespaces=())

    n_a: int = identity(20, "N_a: samples per source text.", ge=0, le=10_000)
    k: int = identity(15, "K: candidates per word.", ge=1, le=1_000)
    p_t: float = identity(0.4, "P_t: a word is replaced when its random number p <= P_t.", ge=0.0, le=1.0)
    seed: int = identity(0, "Seed of the random draws.", ge=0, lt=2**63)
    conditioning: Conditioning = identity(
        "original",
        "Candidates come from the original text, or from the sample as replaced so far (Algorithm 1 as printed).",
    )
    context: Context = identity(
        "single", "Masked LM input: the masked text; a pair of masked and original text; or the unmasked text (fast)."
    )
    words: Words = identity(
        "reference",
        "Words that may be replaced: [a-z]+ outside the stop list; words of letters only; all but punctuation.",
    )
    text: TextForm = identity(
        "preserve", "Form of samples: replace words in the original string, or join normalised words by spaces."
    )
    filter: Filter = identity(
        "reference", "Candidates: the K best vocabulary entries without word continuations; or the K best whole words."
    )
    pairs: Pairs = identity(
        "both", "Text pairs: every sample may change both texts, or samples change one text each, in turn."
    )
