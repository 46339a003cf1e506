"""What the ledger, the result's bytes and the metrics cost: CPU time of one frame, in microseconds.

    python -m benchmarks.accounting

The functions that the server runs for a computed frame, on frames of its own, without a network or an engine: the
stamps of the ledger, the result's protobuf with eight detections, the answer's time appended, every counter and
histogram. The thread's own CPU time is taken, and the least of several rounds: other processes only add to it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.serving import machine, verdict
from engine.postprocess import Detections
from protos.monocoque.v1 import camera_pb2
from server.frames import Answer, CameraKey, Frame, OpenCamera
from server.host.process_memory import ProcessMemory
from server.observe.ledger import Ledger
from server.observe.metrics import Metrics
from server.stream.answers import AnswerWriter, EngineFacts, as_response, finish

AIM_US = 30.0
ROUNDS = 15
FRAMES = 2000
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
    table.add_column("µs", justify="right")
    total = 0.0
    for name, step in steps().items():
        cost = cost_us(step)
        total += cost
        table.add_row(name, f"{cost:.1f}")
    table.add_row("together", f"{total:.1f}", style="bold")
    console.print(table)
    console.print(verdict("ledger, encoding and metrics, µs a frame", total, AIM_US))


if __name__ == "__main__":
    main()
