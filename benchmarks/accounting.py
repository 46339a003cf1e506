"""What the ledger, the result's bytes and the metrics cost: CPU time of one frame, in microseconds.

    python -m benchmarks.accounting

The functions that the server runs for a computed frame, on frames of its own, without a network or an engine: the
stamps of the ledger, the result's protobuf with eight detections, the answer's time appended, every counter and
histogram. The thread's own CPU time is taken, twice:

- again and again, the least of several rounds: other processes only add to it. This is what a server at its limit pays;
- once after each inference of the RepVGG-A0 shape, median: what a lone frame pays. The engine's weights and activations
  have taken the place of our code in the core's caches by then, and the same instructions take several times as long.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import reference_model
from benchmarks.serving import machine, verdict
from engine.allocate import allocate
from engine.bundle import Bundle
from engine.opening import open_runtime
from engine.postprocess import Detections
from engine.slots import RegionTable
from protos.monocoque.v1 import camera_pb2
from server.frames import Answer, CameraKey, Frame, OpenCamera
from server.host.process_memory import ProcessMemory
from server.observe.ledger import Ledger
from server.observe.metrics import Metrics
from server.stream.answers import AnswerWriter, EngineFacts, as_response, finish

AIM_US = 30.0
ROUNDS = 15
FRAMES = 2000
INFERENCES = 300
DETECTIONS = 8


class Nobody:
    """The owner of a camera whose answers nobody reads."""

    replays = False

    def deliver(self, answer: Answer) -> None:
        """Never called here."""

    def left_slot(self, frame: Frame) -> None:
        """Never called here."""


def cost_us(step: Callable[[], object]) -> float:
    """CPU time of one call: the least mean of all rounds."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.thread_time_ns()
        for _ in range(FRAMES):
            step()
        rounds.append((time.thread_time_ns() - started) / FRAMES / 1e3)
    return min(rounds)


def cost_after_inference_us(step: Callable[[], object], infer: Callable[[], object]) -> float:
    """CPU time of one call right after an inference: the median."""
    times = []
    for _ in range(INFERENCES):
        infer()
        started = time.thread_time_ns()
        step()
        times.append((time.thread_time_ns() - started) / 1e3)
    return statistics.median(times)


@contextlib.contextmanager
def engine() -> Iterator[Callable[[], object]]:
    """One inference, on one thread."""
    bundle, regions = Bundle.open(reference_model.camera_bundle()), RegionTable()
    with contextlib.ExitStack() as stack:
        stack.callback(regions.close)
        runtime = open_runtime(bundle, "cpu", regions, threads=1)
        stack.callback(runtime.close)
        batch = stack.enter_context(allocate(runtime.describe(), regions, 1)).batch(1)
        yield lambda: runtime.run(batch)


def steps() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    metrics = Metrics(max_cameras=32)
    camera = OpenCamera(
        CameraKey("stream-1", "front"), camera_pb2.Camera(id="front"), Nobody(), (), metrics.camera("front")
    )
    header = camera_pb2.FrameHeader(camera_id="front", sequence=1, capture_time_ns=1, width=640, height=384)
    facts = EngineFacts("0" * 64, memory_bytes={"weights": 1, "activations": 2}, labels=("car", "van"))
    writer = AnswerWriter(facts, ProcessMemory(time.monotonic_ns))
    found = Detections(
        scores=np.linspace(1, 0.5, DETECTIONS, dtype=np.float32),
        classes=np.zeros(DETECTIONS, np.int64),
        boxes=np.ones((DETECTIONS, 4), np.float32),
        distances=np.ones(DETECTIONS, np.float32),
        finite=True,
    )

    def frame() -> Frame:
        ledger = Ledger(received=time.monotonic_ns(), sent=1)
        for boundary in ("selected", "decoded", "batched", "preprocessed", "inferred", "postprocessed"):
            setattr(ledger, boundary, time.monotonic_ns())
        return Frame(camera, header, memoryview(b""), ledger, captured=1, uncertainty_ns=0, deadline_ns=None)

    stamped = frame()
    answer = writer.computed(stamped, found, [], "", 1)
    finished = finish(answer, time.monotonic_ns())

    def count() -> None:
        camera.metrics.frames["ok"].inc()
        camera.metrics.observe(finished.stages, finished.age_ns, 0)
        metrics.batch_size().observe(1)
        metrics.engine_busy("surround", "1").inc(0.004)

    return {
        "ledger: a frame and its stamps": frame,
        f"result: {DETECTIONS} detections as protobuf": lambda: writer.computed(stamped, found, [], "", 1),
        "result: the time appended": lambda: as_response(finish(answer, time.monotonic_ns()).result),
        "metrics: all counters and histograms": count,
    }


def main() -> None:
    """Measure and print."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    console = Console()
    table = Table(title=f"CPU time of one frame; {machine()}", title_justify="left")
    table.add_column("part")
    for name in ("µs, again and again", "µs, after an inference"):
        table.add_column(name, justify="right")
    found = steps()
    hot = {name: cost_us(step) for name, step in found.items()}
    with engine() as infer:
        cold = {name: cost_after_inference_us(step, infer) for name, step in found.items()}
    for name in found:
        table.add_row(name, f"{hot[name]:.1f}", f"{cold[name]:.1f}")
    table.add_row("together", f"{sum(hot.values()):.1f}", f"{sum(cold.values()):.1f}", style="bold")
    console.print(table)
    console.print(verdict("ledger, encoding and metrics, µs a frame", sum(hot.values()), AIM_US))


if __name__ == "__main__":
    main()
