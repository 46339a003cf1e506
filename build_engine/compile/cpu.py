"""How fast graphs run on this machine's CPU, and on which kernels."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from build_engine.compile.interleaved import interleaved
from build_engine.graph import Tensors
from build_engine.progress import Progress


@dataclass(frozen=True)
class Latency:
    """Time of one inference on the CPU.

    Attributes:
        graph: Which graph.
        batch: Entries per inference.
        median_ms: Half of the runs took longer.
        p90_ms: A tenth of the runs took longer.
        runs: How many were measured.
    """

    graph: str
    batch: int
    median_ms: float
    p90_ms: float
    runs: int


def measure(
    graphs: Mapping[str, bytes],
    inputs: Mapping[int, Tensors],
    *,
    seconds: float,
    threads: int,
    progress: Progress,
) -> tuple[Latency, ...]:
    """Measure graphs against each other: warm, and in turns, so that a busy machine slows all of them alike.

    Args:
        graphs: Bytes by name.
        inputs: Inputs by batch size.
        seconds: Time per graph and batch size.
        threads: Threads of one inference.
        progress: Shown the rounds of every batch size.
    """
    results: list[Latency] = []
    for batch, feed in inputs.items():
        times = interleaved(
            graphs,
            dict.fromkeys(graphs, feed),
            seconds=seconds,
            threads=threads,
            progress=progress,
            title=f"Measuring latency, batch {batch}",
        )
        results += [
            Latency(name, batch, float(np.median(runs)), float(np.quantile(runs, 0.9)), len(runs))
            for name, runs in times.items()
        ]
    return tuple(results)


def batch_sizes(largest: int) -> Sequence[int]:
    """Powers of two up to the largest batch, and that batch itself."""
    sizes = [1 << power for power in range(largest.bit_length()) if 1 << power < largest]
    return [*sizes, largest]


def kernels(graph: bytes) -> Counter[str]:
    """Operators that ONNX Runtime really runs, after its own optimizations.

    A Q/DQ pair in the graph is a wish; `QLinearConv` here is an integer kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(path).graph.node)


def integer_kernels(graph: bytes) -> dict[str, int]:
    """Those of `kernels` that compute on integers, by operator: `QLinearConv`, `MatMulIntegerToFloat` and the like."""
    counted = sorted(kernels(graph).items())
    return {kind: count for kind, count in counted if "QLinear" in kind or "Integer" in kind}
