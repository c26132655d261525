"""Response bodies, for the OpenAPI document and the Python client; the service writes them with orjson."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field


class Replacement(BaseModel):
    """A replaced word: code points [start, end) of the sample's own text."""

    column: Literal["text_a", "text_b"]
    start: int
    end: int
    word: str = Field(description="The original word, as normalised by the tokenizer.")
    candidate: str = Field(description="The word that replaced it.")
    origin: Literal["mlm", "glove"]


class Sample(BaseModel):
    """One augmented example."""

    n: int = Field(description="Number of the sample, from 1.")
    text_a: str
    text_b: str | None
    replaced: list[Replacement]

    def __str__(self) -> str:
        return self.text_a if self.text_b is None else f"{self.text_a}\t{self.text_b}"


class TextSamples(BaseModel):
    """The samples of one text or pair; fewer than N_a when the text has too few words to replace."""

    id: int
    samples: list[Sample]


class AugmentResponse(BaseModel):
    """One entry per text, in order."""

    results: list[TextSamples]


class WordCandidates(BaseModel):
    """A word: code points [start, end) of its text, the model that proposes its candidates, and these, best first."""

    start: int
    end: int
    word: str
    origin: Literal["mlm", "glove"] | None = Field(description="Null if the word is never replaced.")
    candidates: list[str]
    scores: list[float] = Field(description="Logits for origin mlm, cosine similarities for glove.")


class ColumnCandidates(BaseModel):
    """One text: the string from which samples are made, and its words in order."""

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
    """One error in a request."""

    pointer: str = Field(description="JSON pointer to the invalid part of the body.")
    detail: str


class Problem(BaseModel):
    """A problem document (RFC 9457). As a line of a stream, it means that the stream ended early."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="Stable name of the kind of problem, for use by programs.")
    errors: list[ProblemPart] = []


class Health(BaseModel):
    """State of the process."""

    status: Literal["ok", "ready", "loading", "draining", "failed"]
    detail: str = ""


class ModelFacts(BaseModel):
    """A loaded model. If its fingerprint is the one in a job's manifest, it gives the same candidates."""

    name: str
    fingerprint: str = Field(description="sha256 of everything that determines its candidates.")
    dtype: str | None = Field(None, description="Precision of the masked LM.")
    device: str | None = Field(None, description="Device that the masked LM runs on.")
    words: int | None = Field(None, description="Number of word vectors.")


class RequestLimits(BaseModel):
    """Limits on one request."""

    max_texts: int
    max_stream_texts: int
    max_text_characters: int
    max_n_a: int
    max_k: int
    max_request_tokens: int = Field(description="Model tokens that one text may require.")
    max_answer_bytes: int


class ServiceInfo(BaseModel):
    """Version, models and limits of this service."""

    version: str
    python: str
    models: dict[Literal["mlm", "glove"], ModelFacts] = Field(description="Empty while the models are loading.")
    limits: RequestLimits
    needs_token: bool
