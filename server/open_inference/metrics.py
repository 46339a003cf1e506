"""The statistics of all models under Triton's names for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from server.engines.statistics import Statistics
from server.observe.metrics import Metrics


def show(metrics: Metrics, models: Mapping[tuple[str, str], Statistics]) -> None:
    """Bring the metrics up to date; models that are not served any more are forgotten.

    Args:
        metrics: Where.
        models: Statistics by name and version.
    """
    for name, family in metrics.triton.items():
        for gone in family.series.keys() - models.keys():
            family.remove(*gone)
        for labels, statistics in models.items():
            family(*labels).set(_value(name, statistics))


def _value(name: str, statistics: Statistics) -> float:
    compute = statistics.compute
    return {
        "nv_inference_request_success": statistics.success.count,
        "nv_inference_request_failure": statistics.fail.count,
        "nv_inference_count": statistics.entries,
        "nv_inference_exec_count": statistics.executions,
        "nv_inference_request_duration_us": statistics.success.ns / 1000,
        "nv_inference_queue_duration_us": statistics.queue.ns / 1000,
        "nv_inference_compute_input_duration_us": compute.input_ns / 1000,
        "nv_inference_compute_infer_duration_us": compute.infer_ns / 1000,
        "nv_inference_compute_output_duration_us": compute.output_ns / 1000,
    }[name]
