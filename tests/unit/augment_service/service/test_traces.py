"""Traces: a span per request, a child of the caller's span, and nothing of the request's content."""

from __future__ import annotations

import pytest

from augment_service.service.traces import NoTracer, OpenTelemetryTracer, make_tracer

SCOPE = {"headers": [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"x", b"secret")]}


def test_a_span_per_request_continues_the_trace_of_the_caller() -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = OpenTelemetryTracer(provider)
    with tracer.request("POST", "/v1/augment", SCOPE) as ended:
        ended(503)
    with tracer.request("GET", "/healthz", {"headers": []}) as ended:
        ended(200)
    first, second = exporter.get_finished_spans()
    assert first.name == "POST /v1/augment"
    assert f"{first.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{first.parent.span_id:016x}" == "b7ad6b7169203331"
    assert first.attributes["http.response.status_code"] == 503
    assert not first.status.is_ok
    assert second.parent is None
    assert "secret" not in first.to_json() + second.to_json()


def test_without_traces_nothing_is_imported_or_recorded() -> None:
    tracer = make_tracer(False)
    assert isinstance(tracer, NoTracer)
    with tracer.request("POST", "/v1/augment", SCOPE) as ended:
        ended(200)
