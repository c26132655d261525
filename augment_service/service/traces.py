"""OpenTelemetry traces: one span per request, a child of the caller's. Spans contain no texts, tokens or addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Protocol

from shared.errors import UsageError

_CARRIED = (b"traceparent", b"tracestate")


class Tracer(Protocol):
    """The interface that the middleware uses."""

    def request(self, method: str, route: str, scope: Any) -> Any:
        """A context manager that yields a function to be called with the response status."""
        ...


class NoTracer:
    """Records no traces."""

    @contextmanager
    def request(self, method: str, route: str, scope: Any) -> Iterator[Any]:
        """Records nothing."""
        yield lambda status: None


class OpenTelemetryTracer:
    """Spans through a tracer provider of OpenTelemetry's SDK."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracer = provider.get_tracer("augment_service", version("tinybert-augment-distill"))
        self._extract, self._kind, self._error = extract, SpanKind.SERVER, Status(StatusCode.ERROR)

    @contextmanager
    def request(self, method: str, route: str, scope: Any) -> Iterator[Any]:
        """The span of one request, up to the last byte of its response."""
        carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _CARRIED}
        attributes = {"http.request.method": method, "http.route": route}
        context = self._extract(carrier)
        # An exception's message may contain request text.
        with self._tracer.start_as_current_span(
            f"{method} {route}",
            context=context,
            kind=self._kind,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:

            def ended(status: int) -> None:
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(self._error)

            yield ended


def make_tracer(is_wanted: bool) -> Tracer:
    """A tracer that exports via OTLP, configured by the OTEL_* variables. Raises UsageError without the packages."""
    if not is_wanted:
        return NoTracer()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UsageError(
            f"--traces needs OpenTelemetry, and {error.name} is missing: pip install '.[traces]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "augment_service"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return OpenTelemetryTracer(provider)
