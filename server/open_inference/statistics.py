"""What a model has done since it was loaded, and where the time went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from protos.inference import service_pb2 as pb
from server.engines.served_engine import ServedEngine, own_memory
from server.engines.tensor_request import Inferred


@dataclass
class Duration:
    """How often something happened, and how long it took in all.

    Attributes:
        count: Times.
        ns: Nanoseconds.
    """

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Count it once more."""
        self.count += 1
        self.ns += ns

    def message(self) -> pb.StatisticDuration:
        """On the wire."""
        return pb.StatisticDuration(count=self.count, ns=self.ns)


@dataclass
class Compute:
    """The parts of executions."""

    input: Duration = field(default_factory=Duration)
    infer: Duration = field(default_factory=Duration)
    output: Duration = field(default_factory=Duration)

    def add(self, inferred: Inferred) -> None:
        """Count an execution."""
        self.input.add(inferred.compute_input_ns)
        self.infer.add(inferred.compute_infer_ns)
        self.output.add(inferred.compute_output_ns)


@dataclass
class Statistics:
    """The counters of one model. All of them only grow."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Compute = field(default_factory=Compute)
    batches: dict[int, Compute] = field(default_factory=dict)
    entries: int = 0
    last_inference_ms: int = 0

    def computed(self, inferred: Inferred, total_ns: int) -> None:
        """Count a request that was answered.

        Args:
            inferred: What the engine's thread measured.
            total_ns: From receipt to answer.
        """
        self.last_inference_ms = time.time_ns() // 1_000_000
        self.entries += inferred.batch
        self.success.add(total_ns)
        self.queue.add(inferred.queue_ns)
        self.compute.add(inferred)
        self.batches.setdefault(inferred.batch, Compute()).add(inferred)

    def message(self, served: ServedEngine) -> pb.ModelStatistics:
        """On the wire.

        Args:
            served: The model.
        """
        manifest, kind = served.bundle.manifest, "CPU" if served.description.target == "cpu" else "GPU"
        held = sum(own_memory(served.memory).values())
        return pb.ModelStatistics(
            name=manifest.name,
            version=manifest.version,
            last_inference=self.last_inference_ms,
            inference_count=self.entries,
            execution_count=self.compute.infer.count,
            inference_stats=pb.InferStatistics(
                success=self.success.message(),
                fail=self.fail.message(),
                queue=self.queue.message(),
                compute_input=self.compute.input.message(),
                compute_infer=self.compute.infer.message(),
                compute_output=self.compute.output.message(),
                cache_hit=pb.StatisticDuration(),
                cache_miss=pb.StatisticDuration(),
            ),
            batch_stats=[
                pb.InferBatchStatistics(
                    batch_size=size,
                    compute_input=compute.input.message(),
                    compute_infer=compute.infer.message(),
                    compute_output=compute.output.message(),
                )
                for size, compute in sorted(self.batches.items())
            ],
            memory_usage=[pb.MemoryUsage(type=kind, byte_size=held)] if held else [],
        )
