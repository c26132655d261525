"""Prometheus metrics of the application and of each model, in a separate registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from augment_service.service.info import build_info

if TYPE_CHECKING:
    from augment_service.service.batcher import PassBatcher, PassReport
    from augment_service.service.cache import ByteLru
    from augment_service.service.info import ModelInfo
    from augment_service.service.neighbours import NeighbourBatcher

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class _Metrics:
    """Creates metrics in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"augment_service_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"augment_service_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"augment_service_{name}", text, labels, buckets=buckets, registry=self.registry)


class PassMetrics(_Metrics):
    """Metrics of the masked LM, in the process that holds it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__(registry)
        self._inputs = self._histogram("pass_inputs", "Masked inputs in a model pass.", _COUNTS)
        self._tokens = self._histogram("pass_tokens", "Tokens in a model pass.", _COUNTS)
        self._requests = self._histogram("pass_requests", "Requests that shared a model pass.", _COUNTS)
        self._seconds = self._histogram("pass_seconds", "Duration of a model pass.", _SECONDS)
        self._wait_seconds = self._histogram("queue_wait_seconds", "Longest wait of a request in a pass.", _SECONDS)

    def passed(self, report: PassReport) -> None:
        """Record one model pass."""
        self._inputs.observe(report.num_inputs)
        self._tokens.observe(report.num_tokens)
        self._requests.observe(report.num_requests)
        self._seconds.observe(report.seconds)
        self._wait_seconds.observe(report.waited_seconds)

    def watch(self, batcher: PassBatcher) -> None:
        """Export the queue length, the throughput, and whether requests share passes."""
        self._gauge("queue_tokens", "Tokens waiting for a model pass.").set_function(lambda: batcher.queued_tokens)
        rate = self._gauge("tokens_per_second", "Throughput of recent full passes.")
        rate.set_function(lambda: batcher.tokens_per_second)
        text = "1 when requests share model passes, 0 when results on this machine depend on the batch."
        self._gauge("shares_passes", text).set(int(batcher.shares_passes))


class WordMetrics(_Metrics):
    """Metrics of the word vectors, in the process that holds them."""

    def watch(self, neighbours: NeighbourBatcher) -> None:
        """Export the queue length and the throughput."""
        self._gauge("queue_words", "Words waiting for the word vectors.").set_function(lambda: neighbours.queued_words)
        rate = self._gauge("words_per_second", "Throughput of the word vectors.")
        rate.set_function(lambda: neighbours.words_per_second)


class ServiceMetrics(_Metrics):
    """Metrics of the application. Label values come from small fixed sets, never from clients."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self._requests = self._counter("requests", "Requests by route and status.", "route", "status")
        self._seconds = self._histogram("request_seconds", "Time to the last byte.", _SECONDS, "route")
        self._rejected = self._counter("rejected", "Requests rejected, by problem code.", "code")
        self.samples = self._counter("samples", "Samples drawn.")
        self._cache = self._counter("cache_lookups", "Cache lookups of a text's candidates.", "outcome")
        self._slow = self._counter("slow_requests", "Requests that took longer than --slow-seconds.", "route")
        self._tokens = self._counter("token_requests", "Requests with an access token, by its name.", "token")
        self.in_flight = self._gauge("requests_in_flight", "Requests in flight.")
        self.ready = self._gauge("ready", "1 when the models are loaded and requests are accepted.")
        self._hit, self._miss = self._cache.labels("hit"), self._cache.labels("miss")
        Info("augment_service_build", "Versions of the running software.", registry=self.registry).info(build_info())
        ProcessCollector(registry=self.registry)
        self._by_route: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one response."""
        key = (route, status)
        children = self._by_route.get(key)
        if children is None:
            children = (self._requests.labels(route, str(status)), self._seconds.labels(route))
            self._by_route[key] = children
        children[0].inc()
        children[1].observe(seconds)

    def rejected(self, code: str) -> None:
        """Count one rejected request."""
        self._rejected.labels(code).inc()

    def slow(self, route: str) -> None:
        """Count one slow request."""
        self._slow.labels(route).inc()

    def used_token(self, name: str) -> None:
        """Count one request of a token; the operator chose its name."""
        self._tokens.labels(name).inc()

    def show_models(self, models: Mapping[str, ModelInfo]) -> None:
        """Export which models are loaded."""
        info = Info("augment_service_model", "A loaded model.", ["model"], registry=self.registry)
        for model, one in models.items():
            info.labels(model).info({"name": one.name, "fingerprint": one.fingerprint} | _texts(one.details))

    def cache_hit(self, is_hit: bool) -> None:
        """Count one cache lookup."""
        (self._hit if is_hit else self._miss).inc()

    def watch_cache(self, cache: ByteLru[Any]) -> None:
        """Export the size of the cache."""
        self._gauge("cache_bytes", "Bytes of cached candidates.").set_function(lambda: cache.num_bytes)
        self._gauge("cache_entries", "Texts with cached candidates.").set_function(lambda: len(cache))

    def watch_memory(self, reserved_bytes: Callable[[], int]) -> None:
        """Export how much of the memory budget the requests in flight hold."""
        self._gauge("reserved_bytes", "Bytes of the memory budget held by requests.").set_function(reserved_bytes)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in values.items()}
