"""The metrics of a Ray Serve replica as Ray metrics; Ray exports them to Prometheus on every node, without a token.

A request to /metrics reaches one replica of the application, and never a replica of a model. Here all of them are
visible, under the names of /metrics with Ray's prefix `ray_` and the labels application, deployment and replica.
"""

from __future__ import annotations

import threading
import time

from prometheus_client import CollectorRegistry
from ray import serve
from ray.util.metrics import Gauge

EXPORT_SECONDS = 5.0
"""Ray expires a gauge that is not set for a while, and so drops replicas that are gone."""


class RayExport:
    """Copies a registry to Ray. Create it in a replica.

    Every sample becomes a gauge, because Ray's own counters and histograms cannot be set to a value. PromQL goes by
    their names, so `rate` and `histogram_quantile` work.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        context = serve.get_replica_context()
        self._registry, self._gauges = registry, dict[str, tuple[Gauge, tuple[str, ...]]]()
        self._replica = {"application": context.app_name, "deployment": context.deployment}
        self._replica["replica"] = context.replica_tag

    def start(self) -> None:
        """Copy periodically, on a daemon thread."""
        threading.Thread(target=self._run, name="metrics", daemon=True).start()

    def copy(self) -> None:
        """Copy every sample of the service; Ray itself reports the memory and CPU time of its processes."""
        for family in self._registry.collect():
            for sample in family.samples:
                if sample.name.startswith("augment_service_") and not sample.name.endswith("_created"):
                    # Models differ in their labels; a gauge needs the union.
                    labels = {name for one in family.samples if one.name == sample.name for name in one.labels}
                    gauge, names = self._gauge(sample.name, family.documentation, labels)
                    values = {name: sample.labels.get(name, "") for name in names}
                    gauge.set(sample.value, tags=values | self._replica)

    def _gauge(self, name: str, text: str, labels: set[str]) -> tuple[Gauge, tuple[str, ...]]:
        found = self._gauges.get(name)
        if found is None:
            names = tuple(sorted(labels))
            found = self._gauges[name] = (Gauge(name, text, (*names, *self._replica)), names)
        return found

    def _run(self) -> None:
        while True:
            self.copy()
            time.sleep(EXPORT_SECONDS)
