"""The operator's limits on one request: checked after validation, and shown as maxima in the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from augment_service.service.requests import AugmentRequest, CandidatesRequest, as_columns
from shared.errors import ExpectedError

STREAM_FACTOR = 16
"""A streamed request may contain this many times as many texts."""


class LimitError(ExpectedError):
    """A request exceeds a limit of this service. `pointer`: JSON pointer to the offending part of the body."""

    http_status = 422

    def __init__(self, message: str, pointer: str) -> None:
        super().__init__(message, pointer)
        self.pointer = pointer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Maxima for one request, named like the options of `augment_service serve`."""

    max_texts: int = 64
    max_text_characters: int = 10_000
    max_n_a: int = 100
    max_k: int = 100
    max_request_tokens: int = 200_000

    def check(self, request: CandidatesRequest, is_stream: bool = False) -> None:
        """Raises LimitError when the request exceeds a limit."""
        max_texts = self._texts(is_stream)
        if len(request.texts) > max_texts:
            raise LimitError(f"{len(request.texts)} texts, more than the limit of {max_texts}", "/texts")
        for index, text in enumerate(request.texts):
            if max(map(len, as_columns(text))) > self.max_text_characters:
                raise LimitError(f"longer than the limit of {self.max_text_characters} characters", f"/texts/{index}")
        if request.k > self.max_k:
            raise LimitError(f"{request.k} is more than the limit of {self.max_k}", "/k")
        if isinstance(request, AugmentRequest) and request.n_a > self.max_n_a:
            raise LimitError(f"{request.n_a} is more than the limit of {self.max_n_a}", "/n_a")

    def schema_of(self, model: type[CandidatesRequest], is_stream: bool = False) -> dict[str, Any]:
        """JSON schema of a request body with these limits as maxima."""
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        fields = schema["properties"]
        fields["texts"]["maxItems"] = self._texts(is_stream)
        for form in fields["texts"]["items"]["anyOf"]:
            (form if form["type"] == "string" else form["items"])["maxLength"] = self.max_text_characters
        fields["k"]["maximum"] = self.max_k
        if "n_a" in fields:
            fields["n_a"]["maximum"] = self.max_n_a
        return schema

    def _texts(self, is_stream: bool) -> int:
        return self.max_texts * (STREAM_FACTOR if is_stream else 1)
