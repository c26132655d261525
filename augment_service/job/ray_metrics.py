"""The metrics of `augment_service.job.metrics` as Ray metrics, which Ray exports to Prometheus on every node."""

from __future__ import annotations

from typing import Any, Literal

from augment_service.job.metrics import JOB_METRICS, SECONDS_BUCKETS


class RayMetrics:
    """The metrics updated by one process of a job; `where` is the kind of process."""

    def __init__(self, job: str, where: Literal["driver", "actor"]) -> None:
        from ray.util import metrics

        self._metrics: dict[str, Any] = {}
        for one in JOB_METRICS:
            if one.where != where:
                continue
            if one.kind == "histogram":
                made = metrics.Histogram(one.name, one.help, list(SECONDS_BUCKETS), one.labels)
            else:
                made = (metrics.Counter if one.kind == "counter" else metrics.Gauge)(one.name, one.help, one.labels)
            self._metrics[one.name] = made.set_default_tags({"job": job})

    def add(self, name: str, amount: float, **labels: str) -> None:
        """Increase a counter; does nothing for 0, which Ray rejects."""
        if amount > 0:
            self._metrics[name].inc(amount, tags=labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._metrics[name].set(value, tags=labels)

    def observe(self, name: str, seconds: float) -> None:
        """Add an observation to a histogram."""
        self._metrics[name].observe(seconds)
