"""Opens the engine on the thread that will own it: load, check against the reference, allocate, warm up."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from engine.allocate import allocate
from engine.bundle import Bundle
from engine.reference import check_reference
from engine.runtime import MemoryReport, Runtime, RuntimeDescription
from engine.slots import RegionTable
from server.engines.pipeline import Pipeline
from server.engines.served_engine import ServedEngine, takes_frames
from server.engines.tensor_pipeline import TensorPipeline
from server.engines.tensor_request import Outcome, TensorRequest
from server.errors import StartFailed
from server.host.process_memory import ProcessMemory
from server.schedule.batching import LatencyCurve, measure
from server.stream.answers import AnswerWriter

log = logging.getLogger("monocoque.engine")

WARM_UP_RUNS = 3
"""The first runs allocate; after three, latency has settled on the runtimes we serve."""

OpenRuntime = Callable[[Bundle, RegionTable], Runtime]


@dataclass(frozen=True)
class OpenEngine:
    """An engine that is ready.

    Attributes:
        served: What it is.
        pipeline: What becomes of camera frames; None for an engine that takes none.
        infer: Computes a request of tensors; None where nobody waits for it any more.
        writer: Writes answers to frames that are not computed.
        memory: What it holds now; to be asked on its own thread.
        max_batch: Frames of its largest batch.
        frame_ns: What one frame takes on it.
        curve: What its batches cost; None where it computes frames one by one.
    """

    served: ServedEngine
    pipeline: Pipeline | None
    infer: Callable[[TensorRequest], Outcome | None]
    writer: AnswerWriter
    memory: Callable[[], MemoryReport]
    max_batch: int
    frame_ns: int
    curve: LatencyCurve | None


def largest_batch(description: RuntimeDescription, wanted: int) -> int:
    """Frames per launch: what was asked for, as far as the engine goes."""
    all_batched = all(spec.batched for spec in (*description.inputs, *description.outputs))
    return min(wanted, description.max_batch) if all_batched else 1


def open_engine(
    bundle: Bundle,
    open_runtime: OpenRuntime,
    *,
    max_batch: int,
    self_check: bool,
    overlap: bool,
    clock: Callable[[], int],
    process: ProcessMemory,
    stack: contextlib.ExitStack,
) -> OpenEngine:
    """Open an engine.

    Args:
        bundle: What to serve.
        open_runtime: Loads its runtime.
        max_batch: Frames per launch, at most.
        self_check: Whether to compare it with the bundle's reference.
        overlap: Whether a batch is prepared while another is computed, which takes slots for both.
        clock: Monotonic clock in nanoseconds.
        process: Memory of this process.
        stack: Gets what must be undone in the end, on this thread.

    Raises:
        EngineError: It cannot be loaded.
        StartFailed: It does not compute what it did when the bundle was built.
    """
    regions = RegionTable()
    stack.callback(regions.close)
    runtime = open_runtime(bundle, regions)
    stack.callback(runtime.close)
    description = runtime.describe()
    if description.degraded:
        log.warning("degraded: %s", description.degraded)
    if self_check:
        outcome = check_reference(bundle, runtime, regions)
        log.info("%s", outcome.message)
        if not outcome.passed:
            raise StartFailed(
                f"{bundle.path}: {outcome.message}",
                remedy="build the bundle on this kind of device, or serve it unchecked with --no-self-check",
            )
    infer = TensorPipeline(runtime, regions, bundle.digest, clock).run
    preprocessing = bundle.manifest.preprocessing
    if preprocessing is None or not takes_frames(bundle.manifest):
        log.info("%s takes tensors, not camera frames: requests are served, streams are refused", bundle.manifest.name)
        served = ServedEngine(bundle, description, runtime.memory())
        writer = AnswerWriter(served.facts(), process)
        return OpenEngine(served, None, infer, writer, runtime.memory, 1, 0, None)
    batch = largest_batch(description, max_batch)
    sides = [allocate(description, regions, batch) for _ in range(2 if overlap else 1)]
    for slots in sides:
        for name in slots.inputs:
            slots.view(name)[...] = 0
        for _ in range(WARM_UP_RUNS):
            runtime.run(slots.batch(batch))
    curve = measure(lambda count: runtime.run(sides[0].batch(count)), batch, clock)
    if batch > 1:
        log.info("%s", curve)
    served = ServedEngine(bundle, description, runtime.memory())
    writer = AnswerWriter(served.facts(), process)
    pipeline = Pipeline(bundle.manifest, preprocessing, runtime, sides, batch, writer, clock)
    return OpenEngine(
        served, pipeline, infer, writer, runtime.memory, batch, curve.latency_ns[1], curve if batch > 1 else None
    )
