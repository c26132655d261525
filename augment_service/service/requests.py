"""What requests and answers look like, and what a request may ask for. No web framework here: the client uses it too.

Bodies are checked by pydantic straight from their bytes. Limits that the operator sets are checked after that, and
stand in the OpenAPI document as maxima.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from shared.errors import ExpectedError
from shared.params import AugmentParams, Conditioning, Context, Filter, Pairs, TextForm, Words

MAX_SEED = 2**63 - 1
MAX_FIRST_ID = 2**53
STREAM_FACTOR = 16
"""How many times as many texts a streamed request may have."""

Text = StrictStr | Annotated[list[StrictStr], Field(min_length=2, max_length=2)]


def _as_whole(value: Any) -> Any:
    # To JSON Schema 3.0 is an integer; "3" and true are none.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_as_whole), Field(strict=True)]
_DEFAULTS = AugmentParams()
_EXAMPLE_TEXTS: list[Any] = ["a gripping and honest film", ["Is it any good?", "It is a great movie."]]


class LimitError(ExpectedError):
    """A request asks for more than this service gives. `pointer`: JSON pointer of the part that does."""

    http_status = 422

    def __init__(self, message: str, pointer: str) -> None:
        super().__init__(message, pointer)
        self.pointer = pointer


class CandidatesRequest(BaseModel):
    """Texts whose candidates are wanted."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": ["a gripping and honest film"], "k": 5}]}
    )

    texts: list[Text] = Field(min_length=1, description="Texts, or pairs of texts that belong together.")
    k: Whole = Field(_DEFAULTS.k, ge=1, description="K: candidates per word.")
    context: Context = Field(_DEFAULTS.context, description="What the masked LM sees beside the mask.")
    words: Words = Field(_DEFAULTS.words, description="Which words may be replaced.")
    text: TextForm = Field(_DEFAULTS.text, description="Keep the original string, or emit normalised words.")
    filter: Filter = Field(_DEFAULTS.filter, description="Which vocabulary entries may be candidates.")

    def params(self) -> AugmentParams:
        """The part that decides candidates and samples."""
        given = self.model_dump(exclude={"texts", "first_id"})
        return AugmentParams.model_construct(**(_DEFAULT_VALUES | given))


class AugmentRequest(CandidatesRequest):
    """Texts whose samples are wanted, and how they are drawn."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"texts": _EXAMPLE_TEXTS, "n_a": 3, "k": 15, "seed": 7}]}
    )

    first_id: Whole = Field(
        0,
        ge=0,
        le=MAX_FIRST_ID,
        description="Source id of the first text, the next ones count on: part of what decides the samples. The batch "
        "job counts its rows from 0.",
    )
    n_a: Whole = Field(_DEFAULTS.n_a, ge=0, description="N_a: samples per text.")
    p_t: float = Field(_DEFAULTS.p_t, ge=0, le=1, strict=True, description="P_t: a word is replaced when p <= P_t.")
    seed: Whole = Field(0, ge=0, le=MAX_SEED, description="Seed of the draws.")
    conditioning: Conditioning = Field(
        _DEFAULTS.conditioning, description="Candidates from the original text, or from the sample as replaced so far."
    )
    pairs: Pairs = Field(_DEFAULTS.pairs, description="Pairs: a sample changes both texts, or one of them in turn.")


_DEFAULT_VALUES = _DEFAULTS.model_dump()


class Replacement(BaseModel):
    """A replaced word: code points [start, end) of the sample's own text."""

    column: Literal["text_a", "text_b"]
    start: int
    end: int
    word: str = Field(description="The word that stood there, after the tokenizer's normalisation.")
    candidate: str = Field(description="The word that stands there now.")
    origin: Literal["mlm", "glove"]


class Sample(BaseModel):
    """One augmented example."""

    n: int = Field(description="1, 2, 3: the number of the sample.")
    text_a: str
    text_b: str | None
    replaced: list[Replacement]

    def __str__(self) -> str:
        return self.text_a if self.text_b is None else f"{self.text_a}\t{self.text_b}"


class TextSamples(BaseModel):
    """The samples of one text or pair; fewer than N_a when the text allows no more."""

    id: int
    samples: list[Sample]


class AugmentResponse(BaseModel):
    """One entry per text, in order."""

    results: list[TextSamples]


class WordCandidates(BaseModel):
    """A word: code points [start, end) of its text, who answers for it (null: it stays), its candidates best first."""

    start: int
    end: int
    word: str
    origin: Literal["mlm", "glove"] | None
    candidates: list[str]
    scores: list[float] = Field(description="Logits for origin mlm, cosines for glove.")


class ColumnCandidates(BaseModel):
    """One text: the string that samples are made from, and its words in order."""

    text: str
    words: list[WordCandidates]


class TextCandidateSets(BaseModel):
    """Candidates of one text, or of both texts of a pair."""

    text_a: ColumnCandidates
    text_b: ColumnCandidates | None


class CandidatesResponse(BaseModel):
    """One entry per text, in order."""

    results: list[TextCandidateSets]


class ProblemPart(BaseModel):
    """One fault of a request."""

    pointer: str = Field(description="JSON pointer of the faulty part of the body.")
    detail: str


class Problem(BaseModel):
    """What went wrong (RFC 9457). In a stream, a line of this form ends it early."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable name of the kind of problem, for programs.")
    errors: list[ProblemPart] = []


class Health(BaseModel):
    """State of the process."""

    status: Literal["ok", "ready", "loading", "draining", "failed"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator lets one request ask for."""

    max_body_bytes: int = 1_000_000
    max_texts: int = 64
    max_text_characters: int = 10_000
    max_n_a: int = 100
    max_k: int = 100
    max_request_tokens: int = 200_000

    def check(self, request: CandidatesRequest, is_stream: bool = False) -> None:
        """Raises LimitError."""
        max_texts = self.max_texts * (STREAM_FACTOR if is_stream else 1)
        if len(request.texts) > max_texts:
            raise LimitError(f"{len(request.texts)} texts; at most {max_texts} here", "/texts")
        for index, text in enumerate(request.texts):
            if max(map(len, as_columns(text))) > self.max_text_characters:
                raise LimitError(f"longer than {self.max_text_characters} characters", f"/texts/{index}")
        if request.k > self.max_k:
            raise LimitError(f"{request.k} is more than {self.max_k}", "/k")
        if isinstance(request, AugmentRequest) and request.n_a > self.max_n_a:
            raise LimitError(f"{request.n_a} is more than {self.max_n_a}", "/n_a")

    def schema_of(self, model: type[CandidatesRequest], is_stream: bool = False) -> dict[str, Any]:
        """JSON schema of a request with these limits as maxima."""
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        fields = schema["properties"]
        fields["texts"]["maxItems"] = self.max_texts * (STREAM_FACTOR if is_stream else 1)
        for form in fields["texts"]["items"]["anyOf"]:
            (form if form["type"] == "string" else form["items"])["maxLength"] = self.max_text_characters
        fields["k"]["maximum"] = self.max_k
        if "n_a" in fields:
            fields["n_a"]["maximum"] = self.max_n_a
        return schema


def as_columns(text: str | Sequence[str]) -> Sequence[str]:
    """A text or a pair -> one text or two."""
    return (text,) if isinstance(text, str) else text
