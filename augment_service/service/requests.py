"""Request bodies, validated by pydantic directly from bytes. The Python client uses them too.

The operator's limits are checked afterwards, see limits.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr, model_validator

from shared.params import AugmentParams, Case, Conditioning, Context, Filter, Pairs, TextForm, Words
from shared.protected import as_kinds_and_patterns

ProtectedKind = Literal["urls", "emails", "html", "mentions", "numbers"]
MAX_SEED = 2**63 - 1
MAX_FIRST_ID = 2**53

Text = StrictStr | Annotated[list[StrictStr], Field(min_length=2, max_length=2)]


def _as_whole(value: Any) -> Any:
    # JSON Schema accepts 3.0 as an integer, but not "3" or true.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_as_whole), Field(strict=True)]
_DEFAULTS = AugmentParams()
_DEFAULT_VALUES = _DEFAULTS.model_dump()
_EXAMPLE_TEXTS: list[Any] = ["a gripping and honest film", ["Is it any good?", "It is a great movie."]]


_CASE_OF_NORMALISED: dict[str, Any] = {
    "required": ["case", "text"],
    "properties": {"case": {"const": "match"}, "text": {"const": "reference"}},
}
"""The combination that the schema excludes: normalised words have no case to match."""


class CandidatesRequest(BaseModel):
    """Texts, and the parameters that determine their candidates."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"texts": ["a gripping and honest film"], "k": 5}], "not": _CASE_OF_NORMALISED},
    )

    texts: list[Text] = Field(min_length=1, description="Texts, or pairs of texts that belong together.")
    k: Whole = Field(_DEFAULTS.k, ge=1, description="K: number of candidates per word.")
    context: Context = Field(
        _DEFAULTS.context,
        description="Masked LM input: the masked text, a pair of masked and original text, or the original (fast).",
    )
    words: Words = Field(_DEFAULTS.words, description="Which words may be replaced.")
    text: TextForm = Field(
        _DEFAULTS.text, description="Replace words in the original string, or join normalised words by spaces."
    )
    filter: Filter = Field(_DEFAULTS.filter, description="Which vocabulary entries may be candidates.")
    case: Case | None = Field(
        None,
        description="With text preserve: a new word takes the case of the word it replaces (match, the default), or "
        "keeps its own.",
    )
    protect: tuple[ProtectedKind, ...] | None = Field(
        None,
        description="Never replace words inside these kinds of text (default: urls, emails and html with text "
        "preserve, otherwise none).",
    )

    @model_validator(mode="after")
    def _knows_case(self) -> Self:
        if self.case == "match" and self.text == "reference":
            raise ValueError("case match needs text preserve")
        return self

    def params(self) -> AugmentParams:
        """The parameters of Algorithm 1 in this request."""
        given = {name: value for name, value in self.__dict__.items() if name in _DEFAULT_VALUES}
        is_original = self.text == "preserve"
        given["case"] = self.case or ("match" if is_original else "keep")
        default = _DEFAULTS.protect if is_original else ()
        given["protect"] = default if self.protect is None else as_kinds_and_patterns(self.protect)
        return AugmentParams.model_construct(**(_DEFAULT_VALUES | given))


class AugmentRequest(CandidatesRequest):
    """Texts, and the parameters that determine their samples."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"texts": _EXAMPLE_TEXTS, "n_a": 3, "k": 15, "seed": 7}],
            "not": _CASE_OF_NORMALISED,
        },
    )

    first_id: Whole = Field(
        0,
        ge=0,
        le=MAX_FIRST_ID,
        description="Source id of the first text; later texts count up from it. The samples depend on the id, as in "
        "the batch job, which numbers its rows from 0.",
    )
    n_a: Whole = Field(_DEFAULTS.n_a, ge=0, description="N_a: number of samples per text.")
    p_t: float = Field(_DEFAULTS.p_t, ge=0, le=1, strict=True, description="P_t: a word is replaced when p <= P_t.")
    seed: Whole = Field(0, ge=0, le=MAX_SEED, description="Seed for the random draws.")
    conditioning: Conditioning = Field(
        _DEFAULTS.conditioning,
        description="Propose candidates from the original text, or from the sample with its replacements so far.",
    )
    pairs: Pairs = Field(
        _DEFAULTS.pairs,
        description="For pairs: a sample may change both texts; one of them, in turn; or both, giving a word that "
        "occurs in both the same replacement.",
    )


def as_columns(text: str | Sequence[str]) -> Sequence[str]:
    """A text or a pair -> its one or two texts."""
    return (text,) if isinstance(text, str) else text
