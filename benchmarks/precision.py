"""FP32, FP16 and INT8 of the reference model, in one run: latency, size, accuracy.

    python -m benchmarks.precision
    python -m benchmarks.precision --frames 600 --methods max percentile mse entropy

Every graph is judged by the same metric on the same held-out frames, the TensorRT graphs too (ONNX Runtime executes
them, slowly). Latency is the CPU's own graphs', in turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from build_engine.camera_input import CameraInput, subtract_in_rows, takes_frames
from build_engine.compile.cpu import kernels, measure
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.graph import feeds, serialize
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import parse_shape
from build_engine.progress import Bars, Progress
from build_engine.quantize import (
    CPU_INT8,
    METHODS,
    TENSORRT_INT8,
    Core,
    Method,
    calibrate,
    choose_limits,
    fused_arithmetic,
    lower_precision_core,
    to_fp16,
    to_int8,
)
from build_engine.quantize.core import with_node_names
from build_engine.quantize.int8 import quantized_nodes, quantized_tensors
from build_engine.session import Session
from engine.cpu import cpu_name
from surround.dataset import Sample, render_split
from surround.evaluate import collect, score_threshold, summarise
from surround.spec import INPUT_SIZE, MEAN, STD

WEIGHTS = Path("surround/weights/surround.safetensors")
FIGURES = ("mAP50", "distance_error", "drivable_iou")
BUDGET_POINTS = 0.3
"""What INT8 may cost of each figure, in points of 100."""


@dataclass(frozen=True)
class Row:
    """One graph: its bytes and what the metric says."""

    name: str
    data: bytes
    figures: Mapping[str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=240, help="held-out frames (default: %(default)s; all: 600)")
    parser.add_argument("--calibration", type=int, default=96, help="frames seen for ranges (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["max", "percentile"], help="calibration")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per graph (default: %(default)s)")
    given = parser.parse_args()

    with Bars() as bars:
        model, core = _network(given.weights, bars)
        with bars.step("Rendering frames", given.calibration + given.frames) as advance:
            seen: list[Sample] = []
            judged: list[Sample] = []
            for split, count, samples in (("train", given.calibration, seen), ("heldout", given.frames, judged)):
                for sample in render_split(split, 0, count):
                    samples.append(sample)
                    advance()
        rows = _graphs(model, core, [sample.frame.image for sample in seen], given.methods, judged, bars)
        timed = {row.name: row.data for row in rows if not row.name.startswith("TRT")}
        frame = {feeds(model)[0].name: judged[0].frame.image[None]}
        latency = {
            row.graph: row.median_ms
            for row in measure(timed, {1: frame}, seconds=given.seconds, threads=given.threads, progress=bars)
        }

    table = Table(
        title=f"{given.frames} held-out frames; {given.threads} thread(s) of {cpu_name()}", title_justify="left"
    )
    for heading in ("graph", "MB", "ms", "faster", "mAP50", "distance", "drivable"):
        table.add_column(heading, no_wrap=True)
    base = rows[0]
    for row in rows:
        time_ms = latency.get(row.name)
        speed = ("–", "–") if time_ms is None else (f"{time_ms:.2f}", f"{latency[base.name] / time_ms:.2f}x")
        changes = [_change(row.figures[name], base.figures[name], row is base) for name in FIGURES]
        table.add_row(row.name, f"{len(row.data) / 1e6:.2f}", *speed, *changes)
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    integer = {kind: count for kind, count in kernels(rows[-1].data).items() if kind.startswith("QLinear")}
    console.print(
        f"integer kernels in {rows[-1].name}: {integer}; red: more than {BUDGET_POINTS} points", highlight=False
    )


def _network(weights: Path, progress: Progress) -> tuple[onnx.ModelProto, Core]:
    if not weights.exists():
        raise SystemExit(f"no weights at {weights}\n  → python -m surround train")
    with progress.step("Loading and fusing surround.model:deployed"):
        try:
            shape = parse_shape(f"1,3,{INPUT_SIZE[1]},{INPUT_SIZE[0]}")
            trained = load_model(parse_source("surround.model:deployed"), weights, [shape]).model
        except BuildError as error:
            raise SystemExit(f"error: {error}") from None
        result = fuse(takes_frames(trained, CameraInput("rgb", MEAN, STD)))
        model = subtract_in_rows(with_node_names(onnx.shape_inference.infer_shapes(result.model, data_prop=True)))
        return model, lower_precision_core(model, fused_arithmetic(result.report))


def _graphs(
    model: onnx.ModelProto,
    core: Core,
    frames: list[np.ndarray[Any, np.dtype[np.uint8]]],
    methods: list[Method],
    judged: list[Sample],
    progress: Progress,
) -> list[Row]:
    name = feeds(model)[0].name
    recipes = (TENSORRT_INT8, CPU_INT8)
    tensors = {recipe.name: quantized_tensors(model, quantized_nodes(model, core, recipe)) for recipe in recipes}
    watched = tuple(dict.fromkeys(tensor for names in tensors.values() for tensor in names))
    ranges = calibrate(model, watched, [{name: frame[None]} for frame in frames], progress)
    graphs = {"FP32": model, "TRT FP16": to_fp16(model, core).model}
    for recipe in recipes:
        for method in methods:
            some = {tensor: ranges[tensor] for tensor in tensors[recipe.name]}
            label = "TRT INT8" if recipe is TENSORRT_INT8 else "INT8"
            graphs[f"{label} {method}"] = to_int8(
                model, core, choose_limits(some, method, symmetric=recipe.symmetric), recipe
            )
    rows = []
    with progress.step("Evaluating", len(graphs)) as advance:
        for label, graph in graphs.items():
            data = serialize(graph)
            rows.append(Row(label, data, _judge(data, name, judged)))
            advance()
    return rows


def _judge(data: bytes, name: str, judged: list[Sample]) -> dict[str, float]:
    session = Session(data, threads=0)
    answers = collect(lambda batch: session.run({name: batch}), iter(judged))
    result = summarise(answers, score_threshold())
    return {figure: float(result[figure]) for figure in FIGURES}


def _change(value: float, base: float, is_base: bool) -> str:
    if is_base:
        return f"{value:.3f}"
    points = 100 * (value - base)
    text = f"{value:.3f} ({points:+.2f})"
    return f"[red]{text}[/]" if abs(points) > BUDGET_POINTS else text


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - started:.0f} s")
