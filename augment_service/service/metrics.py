"""Prometheus metrics of the service, in a registry of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from augment_service.service.batcher import PassReport
    from augment_service.service.cache import ByteLru

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class ServiceMetrics:
    """What happens, counted. Labels are of small fixed sets: nothing that a client sends becomes one."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self._seconds = self._histogram("request_seconds", "Time to the last byte.", _SECONDS, "route")
        self._rejected = self._counter("rejected", "Requests refused, by problem code.", "code")
        self.samples = self._counter("samples", "Samples drawn.")
        self._cache = self._counter("cache_lookups", "Look-ups of a text's candidates.", "outcome")
        self._pass_inputs = self._histogram("pass_inputs", "Masked inputs of a model pass.", _COUNTS)
        self._pass_tokens = self._histogram("pass_tokens", "Pieces of a model pass.", _COUNTS)
        self._pass_requests = self._histogram("pass_requests", "Requests that shared a model pass.", _COUNTS)
        self._pass_seconds = self._histogram("pass_seconds", "Time of a model pass.", _SECONDS)
        self._wait_seconds = self._histogram("queue_wait_seconds", "Longest wait of a request for a pass.", _SECONDS)
        self.in_flight = self._gauge("requests_in_flight", "Requests being answered.")
        self.ready = self._gauge("ready", "1 when the models are loaded and requests are taken.")
        self.shares_passes = self._gauge(
            "shares_passes", "1 when requests share model passes, 0 where this machine's products forbid it."
        )
        self._hit, self._miss = self._cache.labels("hit"), self._cache.labels("miss")
        self._by_route: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request."""
        key = (route, status)
        children = self._by_route.get(key)
        if children is None:
            children = (self._requests.labels(route, str(status)), self._seconds.labels(route))
            self._by_route[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def rejected(self, code: str) -> None:
        """One refusal."""
        self._rejected.labels(code).inc()

    def cache_hit(self, is_hit: bool) -> None:
        """One look-up."""
        (self._hit if is_hit else self._miss).inc()

    def passed(self, report: PassReport) -> None:
        """One model pass."""
        self._pass_inputs.observe(report.num_inputs)
        self._pass_tokens.observe(report.num_tokens)
        self._pass_requests.observe(report.num_requests)
        self._pass_seconds.observe(report.seconds)
        self._wait_seconds.observe(report.waited_seconds)

    def watch_cache(self, cache: ByteLru[Any]) -> None:
        """Show the cache's size."""
        self._gauge("cache_bytes", "Candidates kept.").set_function(lambda: cache.num_bytes)
        self._gauge("cache_entries", "Texts whose candidates are kept.").set_function(lambda: len(cache))

    def watch_queue(self, queued_tokens: Callable[[], int], tokens_per_second: Callable[[], float]) -> None:
        """Show the queue and the model's pace."""
        self._gauge("queue_tokens", "Pieces that wait for a model pass.").set_function(queued_tokens)
        self._gauge("tokens_per_second", "Pace of recent full passes.").set_function(tokens_per_second)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"augment_service_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"augment_service_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"augment_service_{name}", text, labels, buckets=buckets, registry=self.registry)
