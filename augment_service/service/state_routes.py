"""Routes that report the state of the process: /healthz, /readyz, /metrics and /info."""

from __future__ import annotations

import orjson
from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from augment_service.service.metrics import ServiceMetrics
from augment_service.service.openapi import HEALTH, INFO, METRICS, READINESS
from augment_service.service.state import State


def add_state_routes(app: FastAPI, state: State, metrics: ServiceMetrics) -> None:
    """Add the routes to the application."""

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", **HEALTH)
    async def healthz() -> Response:
        return _health("ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", **READINESS)
    async def readyz() -> Response:
        if state.is_draining:
            return _health("draining", 503)
        if state.augmenter is not None:
            return _health("ready")
        return _health("failed" if state.failure else "loading", 503, state.failure)

    @app.get("/metrics", **METRICS)
    async def prometheus() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/info", **INFO)
    async def info() -> Response:
        body = orjson.dumps(state.describe())
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


def _health(status: str, code: int = 200, detail: str = "") -> Response:
    body = orjson.dumps({"status": status, "detail": detail})
    return Response(body, code, media_type="application/json", headers={"Cache-Control": "no-store"})
