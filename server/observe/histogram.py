"""A histogram for the event loop: the same page for Prometheus as prometheus-client's, at a sixth of its cost.

That one takes a lock and walks through its buckets: 3 µs for 34 of them, eleven times a frame. Here the bucket is found
by bisection, and no lock is taken, since the event loop alone observes and renders.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Histogram(Collector):
    """A histogram, or a family of them by labels.

    Args:
        name: Of the metric.
        documentation: Its help text.
        label_names: Names of its labels, in order; a series is asked for with `labels`.
        buckets: Upper bounds, ascending, without infinity.
        registry: Where it is collected; None: nowhere, as for a series of a family.
    """

    def __init__(
        self,
        name: str,
        documentation: str,
        label_names: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry | None = None,
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._label_names = tuple(label_names)
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._series: dict[tuple[str, ...], Histogram] = {}
        if registry is not None:
            registry.register(self)

    def observe(self, value: float) -> None:
        """Count a value. A bound belongs to its bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def labels(self, *values: str) -> Histogram:
        """The series with these label values, made when it is first asked for."""
        found = self._series.get(values)
        if found is None:
            found = self._series[values] = Histogram(self._name, self._documentation, buckets=self._bounds)
        return found

    def remove(self, *values: str) -> None:
        """Forget one series."""
        self._series.pop(values, None)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus reads: this one, or every series of the family."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)
        own = self._series if self._label_names else {(): self}
        for values, series in list(own.items()):
            family.add_metric(values, buckets=series._cumulative(), sum_value=series._sum)
        return [family]

    def describe(self) -> Iterable[Metric]:
        """The family without its series."""
        return [HistogramMetricFamily(self._name, self._documentation, labels=self._label_names)]

    def _cumulative(self) -> list[tuple[str, float]]:
        """Bounds as Prometheus writes them, with how many values did not exceed each."""
        rows: list[tuple[str, float]] = []
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            rows.append((floatToGoString(bound), total))  # type: ignore[no-untyped-call] # few types there
        return rows
