"""The answer to `ModelStatistics`."""

from __future__ import annotations

from protos.inference import service_pb2 as pb
from server.engines.served_engine import ServedEngine, own_memory
from server.engines.statistics import Compute, Duration, Statistics


def message(statistics: Statistics, served: ServedEngine) -> pb.ModelStatistics:
    """Statistics on the wire.

    Args:
        statistics: The model's.
        served: The model.
    """
    manifest, kind = served.bundle.manifest, "CPU" if served.description.target == "cpu" else "GPU"
    held = sum(own_memory(served.memory).values())
    return pb.ModelStatistics(
        name=manifest.name,
        version=manifest.version,
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.entries,
        execution_count=statistics.executions,
        inference_stats=pb.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
            **_parts(statistics.compute),
        ),
        batch_stats=[
            pb.InferBatchStatistics(batch_size=size, **_parts(compute))
            for size, compute in sorted(statistics.batches.items())
        ],
        memory_usage=[pb.MemoryUsage(type=kind, byte_size=held)] if held else [],
    )


def _duration(one: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=one.count, ns=one.ns)


def _parts(compute: Compute) -> dict[str, pb.StatisticDuration]:
    return {
        "compute_input": pb.StatisticDuration(count=compute.count, ns=compute.input_ns),
        "compute_infer": pb.StatisticDuration(count=compute.count, ns=compute.infer_ns),
        "compute_output": pb.StatisticDuration(count=compute.count, ns=compute.output_ns),
    }
