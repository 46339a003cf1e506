"""Backbones side by side: what re-parameterization buys against shortcuts, on the reference task.

    python -m benchmarks.backbones                        train each for 10 minutes of two cores, then the table
    python -m benchmarks.backbones --minutes 2            a quick look; the accuracies mean little
    python -m benchmarks.backbones --markdown out/backbones/table.md

All have the same neck, heads, data, seed, frame size (320x192) and training time. What has been trained stays in
out/backbones; delete it to train again. Latency is ONNX Runtime's, one thread, all graphs in turns. Memory is
TensorRT-RTX's own account in FP16, at 1280x768 and without decoding, less what any network has: at
320x192 that constant is larger than everything else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import nn

from build_engine.compile.cpu import measure
from build_engine.compile.rtx_memory import rtx_memory
from build_engine.fuse import fuse
from build_engine.fuse.cost import Cost
from build_engine.fuse.residuals import remove_residuals
from build_engine.graph import serialize
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from build_engine.progress import Bars, Progress
from build_engine.session import Session
from engine.cpu import cpu_name
from surround.backbones import BACKBONES, COMPARED_SIZE, deployed_at_compared_size
from surround.batches import normalise
from surround.dataset import Cache, open_cache
from surround.evaluate import metric
from surround.model import DEFAULT_FORM, SurroundNet
from surround.spec import INPUT_SIZE
from surround.train import Phase, Plan, Trainer, save_weights

BATCH = 16
FRAMES = 6000
MEMORY_SIZE = (1280, 768)
"""(width, height) at which memory is asked for."""
TIMED_STEPS = 8
"""Steps that are timed, after as many for warming up, to know how many fit the budget."""

TRAINED = ("residual", "plain", "separable")


@dataclass(frozen=True)
class Training:
    """What a backbone's training came to.

    Attributes:
        steps: Steps of 16 frames.
        core_seconds_per_step: CPU time of one, all threads together.
        minutes: CPU time of the whole, over the threads.
    """

    steps: int
    core_seconds_per_step: float
    minutes: float


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="training time of each (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=600, help="held-out frames to judge on (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per graph for latency (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("out/backbones"), help="(default: %(default)s)")
    parser.add_argument("--markdown", type=Path, help="write the table there as well")
    given = parser.parse_args()

    with Bars() as bars:
        for name in TRAINED:
            if not (given.output / f"{name}.json").exists():
                _train(name, given.output, given.minutes, given.threads, bars)
        graphs = [graph for name in BACKBONES for graph in _graphs(name, given.output, bars)]
        rows = _rows(graphs, given.output, given.frames, given.seconds, bars)
    _print(rows, given.markdown)


def training_plan(steps: int, threads: int, seed: int = 1, form: str = DEFAULT_FORM) -> Plan:
    """Minutes of training at the compared size."""
    phases = (Phase(steps, COMPARED_SIZE, BATCH, zoom=(-0.15, 0.35)),)
    return Plan(phases, FRAMES, seed, peak_rate=2e-3, average=0.99, threads=threads, form=form)


def training_frames(output: Path, progress: Progress) -> Cache:
    """The frames that all networks are trained on, rendered where they are missing."""
    with progress.step("Rendering frames to train on", FRAMES) as advance:
        return open_cache(output, "train", FRAMES, 1, 2, lambda done: _repeat(advance, done))


def train(title: str, trainer: Trainer, checkpoint: Path, progress: Progress) -> float:
    """Run a plan to its end, from its checkpoint where there is one; returns the CPU seconds that it took now."""
    if checkpoint.exists():
        trainer.restore(checkpoint)
    with progress.step(f"Training {title}, {trainer.plan.steps} steps", trainer.plan.steps) as advance:
        _repeat(advance, trainer.step)
        started = time.process_time()
        while trainer.step < trainer.plan.steps:
            trainer.run(1, lambda losses: advance())
            if trainer.step % 100 == 0:
                trainer.save(checkpoint)
        return time.process_time() - started


def _train(name: str, output: Path, minutes: float, threads: int, progress: Progress) -> None:
    def build() -> SurroundNet:
        return SurroundNet(BACKBONES[name]())

    frames = training_frames(output, progress)
    trial = Trainer(training_plan(2 * TIMED_STEPS, threads), frames, build)
    trial.run(TIMED_STEPS)
    times = []
    for _ in range(TIMED_STEPS):
        started = time.process_time()
        trial.run(1)
        times.append(time.process_time() - started)
    per_step = statistics.median(times)
    steps = max(1, int(60 * minutes * threads / per_step))
    checkpoint = output / f"{name}.checkpoint.pt"
    if checkpoint.exists():
        steps = int(torch.load(checkpoint, weights_only=True)["plan"]["phases"][0]["steps"])
    trainer = Trainer(training_plan(steps, threads), frames, build)
    spent = train(name, trainer, checkpoint, progress)
    module = deployed_at_compared_size(name)
    module.network.load_state_dict(trainer.averaged.state_dict())
    save_weights(module, output / f"{name}.safetensors")
    training = Training(steps, per_step, spent / threads / 60)
    (output / f"{name}.json").write_text(json.dumps(asdict(training)) + "\n")


def _repeat(advance: Callable[[], None], times: int) -> None:
    for _ in range(times):
        advance()


Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[Any]]]


def at_compared_size(run: Run) -> Run:
    """A network that takes frames of 320x192, as the function that evaluation wants.

    Args:
        run: Frames (N, 192, 320, 3) uint8 RGB to outputs by name.

    Returns:
        The same for frames (N, 384, 640, 3), with answers for those.
    """

    def whole(frames: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        outputs = run(np.stack([half(frame) for frame in frames]))
        scale = INPUT_SIZE[0] / COMPARED_SIZE[0]
        # A camera's focal length in pixels shrinks with the frame, and virtual distances are stated for a fixed one.
        return {**outputs, "boxes": outputs["boxes"] * scale, "distances": outputs["distances"] / scale}

    return whole


def half(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (384, 640, 3) as a network of the compared size sees it, (192, 320, 3)."""
    return np.asarray(cv2.resize(frame, COMPARED_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def _run(graph: bytes) -> Run:
    session = Session(graph, threads=2)
    return at_compared_size(lambda frames: session.run({"frames": normalise(frames)}))


@dataclass(frozen=True)
class Graph:
    """One form of one backbone's network."""

    name: str
    backbone: str
    bytes: bytes
    cost: Cost
    activation_bytes: int | None


def _graphs(name: str, output: Path, progress: Progress) -> list[Graph]:
    """The network as trained, fused, and without shortcuts where it has some."""
    module = deployed_at_compared_size(name)
    weights = output / f"{name}.safetensors"
    if weights.exists():
        module.load_state_dict(load_file(weights))
    with progress.step(f"Exporting, fusing and compiling {name}"):
        small = _forms(module, COMPARED_SIZE)
        large = _forms(module.network, MEMORY_SIZE)
        return [
            Graph(f"{name}, {form}", name, serialize(model), cost, _activation_bytes(large[form][0]))
            for form, (model, cost) in small.items()
        ]


def _forms(module: nn.Module, size: tuple[int, int]) -> dict[str, tuple[onnx.ModelProto, Cost]]:
    trained = export(module, [InputShape("frames", (1, 3, size[1], size[0]))], None)
    fused = fuse(trained)
    forms = {"as trained": (trained, fused.report.before), "fused": (fused.model, fused.report.after)}
    plain = remove_residuals(fused.model)
    if plain.removed:
        forms["fused, shortcuts removed"] = (plain.model, plain.after)
    return forms


def _activation_bytes(model: onnx.ModelProto) -> int | None:
    account = rtx_memory(model)
    return None if account is None else account.own_activation_bytes


Row = tuple[str, ...]
HEAD: Row = (
    "network",
    "parameters, M",
    "GMAC",
    "launches",
    "live tensors, MB",
    "TensorRT-RTX activation memory, MB",
    "latency, ms",
    "mAP50",
    "distance error",
    "drivable IoU",
    "training",
)


def _rows(graphs: Sequence[Graph], output: Path, frames: int, seconds: float, progress: Progress) -> list[Row]:
    data = {graph.name: graph.bytes for graph in graphs}
    inputs = {1: {"frames": np.zeros((1, 3, COMPARED_SIZE[1], COMPARED_SIZE[0]), np.float32)}}
    latency = {row.graph: row.median_ms for row in measure(data, inputs, seconds=seconds, threads=1, progress=progress)}
    rows = []
    with progress.step("Judging", len(graphs)) as advance:
        for graph in graphs:
            record = output / f"{graph.backbone}.json"
            accuracy: Row = ("–",) * 4
            if record.exists():
                training = Training(**json.loads(record.read_text()))
                reached = metric(_run(graph.bytes), frames)
                accuracy = (
                    f"{reached['mAP50']:.3f}",
                    f"{100 * reached['distance_error']:.1f} %",
                    f"{reached['drivable_iou']:.3f}",
                    f"{training.steps} steps, {training.minutes:.1f} min",
                )
            cost, memory = graph.cost, graph.activation_bytes
            rows.append(
                (
                    graph.name,
                    f"{cost.parameters / 1e6:.2f}",
                    f"{cost.macs / 1e9:.2f}",
                    str(cost.launches),
                    f"{cost.activation_bytes / 1e6:.2f}",
                    "–" if memory is None else f"{memory / 1e6:.2f}",
                    f"{latency[graph.name]:.2f}",
                    *accuracy,
                )
            )
            advance()
    return rows


def _print(rows: Sequence[Row], markdown: Path | None) -> None:
    title = f"{COMPARED_SIZE[0]}x{COMPARED_SIZE[1]}, batch 1, one thread of {cpu_name()}"
    table = Table(*HEAD, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=200).print(table)
    if markdown is not None:
        lines = ["| " + " | ".join(cells) + " |" for cells in (HEAD, ("---",) * len(HEAD), *rows)]
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
