"""The OpenAPI description of each route: bodies with the operator's limits, examples, and every possible problem."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from augment_service.service.limits import Limits
from augment_service.service.problems import PROBLEM_TYPE
from augment_service.service.requests import AugmentRequest, CandidatesRequest
from augment_service.service.responses import (
    AugmentResponse,
    CandidatesResponse,
    Health,
    Problem,
    ServiceInfo,
    TextSamples,
)

_PROBLEMS = {
    400: "The body is not valid JSON.",
    401: "The service requires a token, and the request has no valid one.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The body was not sent as application/json.",
    421: "Without tokens, only loopback host names are accepted.",
    422: "The body does not match the schema, or the request or its response exceeds a limit of the service.",
    429: "The token has reached one of its limits: try again after Retry-After seconds.",
    431: "The headers are too large or too many.",
    503: "Overloaded, still loading, or shutting down: try again after Retry-After seconds.",
    504: "The request exceeded its time limit. A retry would most likely take just as long.",
}
_EXAMPLE_PROBLEM = {
    "type": "about:blank",
    "title": "Service Unavailable",
    "status": 503,
    "detail": "the model is busy for another 2.3 s; try again later",
    "code": "overload",
    "errors": [],
}
_EXAMPLE_SAMPLE = {
    "n": 1,
    "text_a": "a gripping and serious film",
    "text_b": None,
    "replaced": [
        {"column": "text_a", "start": 15, "end": 22, "word": "honest", "candidate": "serious", "origin": "mlm"}
    ],
}
_EXAMPLE_TEXT = {"id": 0, "samples": [_EXAMPLE_SAMPLE]}
_EXAMPLE_WORD = {
    "start": 15,
    "end": 21,
    "word": "honest",
    "origin": "mlm",
    "candidates": ["serious", "moving"],
    "scores": [9.81, 9.02],
}
_EXAMPLE_CANDIDATES = {"text_a": {"text": "a gripping and honest film", "words": [_EXAMPLE_WORD]}, "text_b": None}


def _problem(text: str, retries: bool = False) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": text,
        "content": {PROBLEM_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if retries:
        answer["content"][PROBLEM_TYPE]["example"] = _EXAMPLE_PROBLEM
        answer["headers"] = {
            "Retry-After": {"description": "Seconds to wait before retrying.", "schema": {"type": "integer"}}
        }
    return answer


def _route(summary: str, model: Any) -> dict[str, Any]:
    responses: dict[int | str, dict[str, Any]] = {
        status: _problem(text, status in (429, 503)) for status, text in _PROBLEMS.items()
    }
    responses[200] = {"model": model}
    return {"summary": summary, "responses": responses, "response_model": None, "tags": ["texts"]}


AUGMENT = _route("Augmented samples of texts", AugmentResponse)
CANDIDATES = _route("The words of texts and their candidates", CandidatesResponse)
STREAM = _route("Augmented samples of many texts: one JSON line per text, sent as soon as it is ready", TextSamples)
HEALTH: dict[str, Any] = {
    "response_model": Health,
    "tags": ["state"],
    "summary": "Is the process alive?",
}
READINESS: dict[str, Any] = {
    "response_model": Health,
    "tags": ["state"],
    "summary": "Is the service ready: models loaded, requests accepted?",
    "responses": {503: {"model": Health, "description": "Loading, failed or draining."}},
}
INFO: dict[str, Any] = {
    "response_model": ServiceInfo,
    "tags": ["state"],
    "summary": "Version, models and limits of this service",
}
METRICS: dict[str, Any] = {
    "tags": ["state"],
    "summary": "Prometheus metrics",
    "responses": {
        200: {
            "description": "Metrics in the Prometheus text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        401: _problem(_PROBLEMS[401]),
    },
    "response_model": None,
}
_BODIES: dict[str, tuple[type[CandidatesRequest], bool, dict[str, Any]]] = {
    "/v1/augment": (AugmentRequest, False, {"results": [_EXAMPLE_TEXT]}),
    "/v1/candidates": (CandidatesRequest, False, {"results": [_EXAMPLE_CANDIDATES]}),
    "/v1/augment/stream": (AugmentRequest, True, _EXAMPLE_TEXT),
}


def describe(app: FastAPI, limits: Limits, needs_token: bool) -> None:
    """Extend the document that FastAPI generates from the routes."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = make()
        components = document.setdefault("components", {})
        components["schemas"]["Problem"] = _plain(Problem, components["schemas"])
        for path, (model, is_stream, example) in _BODIES.items():
            operation = document["paths"][path]["post"]
            schema = limits.schema_of(model, is_stream)
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
            content = operation["responses"]["200"]["content"]
            # Set here and not on the route, because FastAPI drops nulls from examples.
            content["application/json"]["example"] = example
            if is_stream:
                content["application/x-ndjson"] = content.pop("application/json")
        if needs_token:
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            for path in (*_BODIES, "/metrics"):
                for operation in document["paths"][path].values():
                    operation["security"] = [{"token": []}]
        document["paths"].pop("/", None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _plain(model: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    return schema
