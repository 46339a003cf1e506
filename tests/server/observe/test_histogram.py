"""Our histogram against prometheus-client's: the same samples for the same values."""

from __future__ import annotations

import prometheus_client
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from server.observe.histogram import Histogram
from server.observe.metrics import LATENCY_BUCKETS_SECONDS

VALUES = st.lists(st.floats(-1, 10) | st.sampled_from(LATENCY_BUCKETS_SECONDS))


def samples(registry: CollectorRegistry) -> list[tuple[str, dict[str, str], float]]:
    return [
        (sample.name, sample.labels, sample.value)
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    ]


@given(VALUES, VALUES)
def test_a_family_shows_what_prometheus_client_would(front: list[float], rear: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    own = Histogram("t_seconds", "text", ("camera",), buckets=LATENCY_BUCKETS_SECONDS, registry=ours)
    reference = prometheus_client.Histogram(
        "t_seconds", "text", ("camera",), buckets=LATENCY_BUCKETS_SECONDS, registry=theirs
    )
    for name, values in (("front", front), ("rear", rear)):
        for value in values:
            own.labels(name).observe(value)
            reference.labels(name).observe(value)
    own.labels("gone").observe(1.0)
    own.remove("gone")
    kept = [
        sample
        for sample in samples(theirs)
        if sample[1]["camera"] in {"front" if front else "", "rear" if rear else ""}
    ]
    assert samples(ours) == kept


def test_one_without_labels_and_one_series_alone() -> None:
    registry = CollectorRegistry()
    histogram = Histogram("n_frames", "text", buckets=(1, 2), registry=registry)
    for value in (1, 2, 3):
        histogram.observe(value)
    buckets = {labels["le"]: value for name, labels, value in samples(registry) if name == "n_frames_bucket"}
    assert buckets == {"1.0": 1, "2.0": 2, "+Inf": 3}
    (family,) = Histogram("t", "text", ("camera",), buckets=(1,)).labels("front").collect()
    assert all("camera" not in sample.labels for sample in family.samples)
