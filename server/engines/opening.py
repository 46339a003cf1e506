"""Opens the engine on the thread that will own it: load, check against the reference, allocate, warm up."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from engine.allocate import TensorSlots, allocate
from engine.bundle import Bundle
from engine.process import WorkerRuntime
from engine.reference import check_reference
from engine.runtime import MemoryReport, Runtime, RuntimeDescription
from engine.slots import RegionTable
from server.engines.openings import Openings
from server.engines.pipeline import Pipeline
from server.engines.served_engine import ServedEngine, takes_frames
from server.engines.tensor_pipeline import TensorPipeline
from server.engines.tensor_request import Outcome, TensorRequest
from server.errors import StartFailed
from server.host.background import in_background
from server.host.process_memory import ProcessMemory
from server.schedule.batching import LatencyCurve, measure
from server.stream.answers import AnswerWriter

log = logging.getLogger("monocoque.engine")

ANY_THREAD = frozenset({"onnxruntime"})
"""Backends that another thread may run while their own waits. A CUDA context belongs to one."""
WARM_UP_RUNS = 3
"""The first runs allocate; after three, latency has settled on the runtimes we serve."""

OpenRuntime = Callable[[Bundle, RegionTable], Runtime]
Result = TypeVar("Result")


@dataclass(frozen=True)
class EngineHost:
    """What every engine of a server is opened with.

    Attributes:
        open_runtime: Loads a runtime.
        max_batch: Frames per launch, at most.
        instances: Runtimes of each bundle, each with a thread.
        self_check: Whether an engine is compared with its bundle's reference.
        overlap: Whether a batch is prepared while another is computed, which takes slots for both.
        realtime_priority: Of the engines' threads in SCHED_FIFO; None leaves them as they are.
        record: Directory for the schedulers' events; None writes none.
        clock: Monotonic clock in nanoseconds.
        process: The server's own memory.
        died: Told that an engine's thread ended on its own; on that thread.
        openings: What is being opened.
    """

    open_runtime: OpenRuntime
    max_batch: int
    instances: int
    self_check: bool
    overlap: bool
    realtime_priority: int | None
    record: Path | None
    clock: Callable[[], int]
    process: ProcessMemory
    died: Callable[[], None]
    openings: Openings = field(default_factory=Openings)


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
        process: Its runtime, where that is a process of its own.
    """

    served: ServedEngine
    pipeline: Pipeline | None
    infer: Callable[[TensorRequest], Outcome | None]
    writer: AnswerWriter
    memory: Callable[[], MemoryReport]
    max_batch: int
    frame_ns: int
    curve: LatencyCurve | None
    process: WorkerRuntime | None


def largest_batch(description: RuntimeDescription, wanted: int) -> int:
    """Frames per launch: what was asked for, as far as the engine goes."""
    all_batched = all(spec.batched for spec in (*description.inputs, *description.outputs))
    return min(wanted, description.max_batch) if all_batched else 1


def open_engine(bundle: Bundle, host: EngineHost, stack: contextlib.ExitStack) -> OpenEngine:
    """Open an engine.

    Args:
        bundle: What to serve.
        host: What it is opened with.
        stack: Gets what must be undone in the end, on this thread.

    Raises:
        EngineError: It cannot be loaded.
        StartFailed: It does not compute what it did when the bundle was built.
    """
    regions = RegionTable()
    stack.callback(regions.close)
    runtime = host.open_runtime(bundle, regions)
    stack.callback(runtime.close)
    description = runtime.describe()
    if description.degraded:
        log.warning("degraded: %s", description.degraded)

    def try_out(work: Callable[[], Result]) -> Result:
        """Run the engine, if need be in the time that the one before it leaves: that one may still serve."""
        return in_background(work).result() if description.backend in ANY_THREAD else work()

    if host.self_check:
        outcome = try_out(lambda: check_reference(bundle, runtime, regions))
        log.info("%s", outcome.message)
        if not outcome.passed:
            raise StartFailed(
                f"{bundle.path}: {outcome.message}",
                remedy="build the bundle on this kind of device, or serve it unchecked with --no-self-check",
            )
    infer = TensorPipeline(runtime, regions, bundle.digest, host.clock).run
    process = runtime if isinstance(runtime, WorkerRuntime) else None
    preprocessing = bundle.manifest.preprocessing
    if preprocessing is None or not takes_frames(bundle.manifest):
        log.info("%s takes tensors, not camera frames: requests are served, streams are refused", bundle.manifest.name)
        served = ServedEngine(bundle, description, runtime.memory())
        writer = AnswerWriter(served.facts(), host.process)
        return OpenEngine(served, None, infer, writer, runtime.memory, 1, 0, None, process)
    batch = largest_batch(description, host.max_batch)
    sides = [allocate(description, regions, batch) for _ in range(2 if host.overlap else 1)]
    try_out(lambda: _warm_up(runtime, sides, batch))
    curve = try_out(lambda: measure(lambda count: runtime.run(sides[0].batch(count)), batch, host.clock))
    if batch > 1:
        log.info("%s", curve)
    served = ServedEngine(bundle, description, runtime.memory())
    writer = AnswerWriter(served.facts(), host.process)
    pipeline = Pipeline(bundle.manifest, preprocessing, runtime, sides, batch, writer, host.clock)
    return OpenEngine(
        served=served,
        pipeline=pipeline,
        infer=infer,
        writer=writer,
        memory=runtime.memory,
        max_batch=batch,
        frame_ns=curve.latency_ns[1],
        curve=curve if batch > 1 else None,
        process=process,
    )


def _warm_up(runtime: Runtime, sides: Sequence[TensorSlots], batch: int) -> None:
    for slots in sides:
        for name in slots.inputs:
            slots.view(name)[...] = 0
        for _ in range(WARM_UP_RUNS):
            runtime.run(slots.batch(batch))
