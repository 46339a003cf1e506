"""FP32, FP16 and INT8 of the reference model, plain INT8 beside the builder's, in one run: latency, size, accuracy.

    python -m benchmarks.precision
    python -m benchmarks.precision --frames 600 --budget 0.3 --full-size 2
    python -m benchmarks.precision --plain max percentile mse entropy

Every graph is judged by the same metric on the same held-out frames, the TensorRT graphs too (ONNX Runtime executes
them, slowly). 'Plain' is one calibration method, weights to the nearest step, nothing tuned. Latency is the CPU's own
graphs', in turns; RepVGG-A0's shape (random weights, 224 x 224) is measured beside it.
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
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from build_engine.camera_input import CameraInput, subtract_in_rows, takes_frames
from build_engine.compile.cpu import integer_kernels, measure
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.load import load_model, parse_source
from build_engine.load.shapes import InputShape, parse_shape
from build_engine.load.torch_export import export
from build_engine.progress import Bars, Progress, Silent
from build_engine.quantize import (
    CPU_INT8,
    METHODS,
    TENSORRT_INT8,
    Choice,
    Core,
    Judge,
    Method,
    Metric,
    Noise,
    Quantizer,
    Search,
    Store,
    best_choice,
    calibrate,
    fused_arithmetic,
    half_tensors,
    lower_precision_core,
    to_half,
)
from build_engine.quantize.candidate import Candidate
from build_engine.quantize.core import with_node_names
from build_engine.session import Session
from engine.cpu import cpu_name
from engine.manifest import Preprocessing
from engine.preprocess import resize_into
from surround.dataset import Sample, render_split
from surround.evaluate import collect, metric, score_threshold
from surround.metrics import average_precision, match, relative_distance_error
from surround.spec import INPUT_SIZE, LABELS, MEAN, STD

WEIGHTS = Path("surround/weights/surround.safetensors")
FIGURES = ("mAP50", "distance_error", "drivable_iou")
RECIPES = (CPU_INT8, TENSORRT_INT8)
A0_STAGES = ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))
"""Width and blocks of RepVGG-A0's stages (arXiv 2101.03697), each beginning with stride 2."""


@dataclass(frozen=True)
class Row:
    """One graph: its bytes and what the metric says."""

    name: str
    data: bytes
    figures: Mapping[str, float]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=240, help="held-out frames (default: %(default)s; all: 600)")
    parser.add_argument("--calibration", type=int, default=96, help="frames seen for ranges (default: %(default)s)")
    parser.add_argument("--plain", nargs="+", choices=METHODS, default=["max"], help="plain quantization beside ours")
    parser.add_argument("--budget", type=float, default=0.3, help="points that INT8 may cost (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per graph (default: %(default)s)")
    parser.add_argument("--full-size", type=int, metavar="N", help="also judge frames N times as large, resized")
    given = parser.parse_args()

    console = Console(width=None if sys.stdout.isatty() else 130)
    with Bars() as bars:
        model, core = _network(given.weights, bars)
        with bars.step("Rendering frames", given.calibration + given.frames) as advance:
            seen: list[Sample] = []
            judged: list[Sample] = []
            for split, count, samples in (("train", given.calibration, seen), ("heldout", given.frames, judged)):
                for sample in render_split(split, 0, count):
                    samples.append(sample)
                    advance()
        rows, said = _graphs(model, core, seen, judged, given.plain, given.budget, bars)
        timed = {row.name: row.data for row in rows if "TensorRT" not in row.name}
        frame = {feeds(model)[0].name: judged[0].frame.image[None]}
        latency = _latency(timed, frame, given.seconds, given.threads, bars)
        small = _a0(given.seconds, given.threads, bars)
        resized = _full_size(model, given.frames, given.full_size, bars) if given.full_size else {}

    title = f"{given.frames} held-out frames; {given.threads} thread(s) of {cpu_name()}; change in points"
    table = Table(title=title, title_justify="left")
    for heading in ("graph", "MB", "ms", "faster", *FIGURES):
        table.add_column(heading, no_wrap=True)
    base = rows[0]
    for row in rows:
        time_ms = latency.get(row.name)
        speed = ("–", "–") if time_ms is None else (f"{time_ms:.2f}", f"{latency[base.name] / time_ms:.2f}x")
        changes = [_change(row.figures[name], base.figures[name], given.budget, row is base) for name in FIGURES]
        table.add_row(row.name, f"{len(row.data) / 1e6:.2f}", *speed, *changes)
    for name, figures in resized.items():
        changes = [_change(figures[one], base.figures[one], given.budget, False) for one in FIGURES]
        table.add_row(name, "", "", "", *changes)
    console.print(table)
    console.print(said, highlight=False)
    for line in _aims(rows, latency, small):
        console.print(line, highlight=False)


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
    seen: list[Sample],
    judged: list[Sample],
    plain: list[Method],
    budget: float,
    progress: Progress,
) -> tuple[list[Row], str]:
    """Every graph with its figures, and what was chosen in words."""
    name = feeds(model)[0].name
    samples = [{name: sample.frame.image[None]} for sample in seen]
    quantizer = Quantizer(model, core, samples, RECIPES, progress)
    store = Store(None, progress)
    noise = Noise(model, core, samples[:: max(1, len(samples) // 8)], store)
    choice, tried = best_choice(quantizer, noise, None, progress)
    judge = Judge(model, [], None, Metric("surround", lambda run: _judged(run, judged), {}, name), store, progress)
    found = Search(
        tuple(quantizer.units),
        lambda kept: quantizer.candidates(choice.without(kept)),
        judge,
        noise,
        budget,
        "INT8",
        store,
        progress,
    ).run()
    halves = calibrate(model, half_tensors(model, core), samples, progress)
    graphs = {"FP32": model, "FP16 (TensorRT's graph)": to_half(model, core, halves).model}
    choices = {f"INT8 plain, {method}": Choice(method) for method in plain} | {"INT8 ours": choice.without(found.kept)}
    for label, one in choices.items():
        for recipe, suffix in zip(RECIPES, ("", " (TensorRT's graph)"), strict=True):
            graphs[label + suffix] = quantizer.graph(one, recipe)
    rows = []
    with progress.step("Evaluating", len(graphs)) as advance:
        for label, graph in graphs.items():
            candidate = Candidate.of(label, graph)
            rows.append(Row(label, candidate.data, judge(candidate).figures))
            advance()
    integer = integer_kernels(serialize(graphs["INT8 ours"]))
    said = (
        f"ours: {choice}; noise {tried[0].worst:.4f} plain, {min(one.worst for one in tried):.4f} ours; "
        f"{len(found.kept)} of {len(quantizer.units)} layers kept out; integer kernels: {integer}"
    )
    return rows, said


def _judged(run: Any, judged: list[Sample]) -> dict[str, float]:  # noqa: ANN401 - a metric's `run`
    answers = collect(run, iter(judged))
    matches = [match(answers.detections, answers.truth, label) for label in range(len(LABELS))]
    return {
        "mAP50": float(np.nanmean([average_precision(found) for found in matches])),
        "distance_error": relative_distance_error(matches, score_threshold()),
        "drivable_iou": answers.area.value,
    }


def _full_size(model: onnx.ModelProto, frames: int, factor: int, progress: Progress) -> dict[str, dict[str, float]]:
    """Figures of frames that come larger, by the kernel that brings them to the network's size."""
    session, name = Session(model, threads=0), feeds(model)[0].name
    found = {}
    for kernel in ("area", "bilinear"):
        spec = Preprocessing(input=name, color="rgb", width=INPUT_SIZE[0], height=INPUT_SIZE[1], kernel=kernel)

        def preprocess(frame: np.ndarray[Any, Any], spec: Preprocessing = spec) -> np.ndarray[Any, Any]:
            out = np.empty((1, spec.height, spec.width, 3), np.uint8)
            resize_into(frame, spec, out[0])
            return out

        with progress.step(f"Judging {factor}x frames, {kernel}"):
            figures = metric(lambda batch: session.run({name: batch}), frames, factor, preprocess)
        found[f"FP32, {factor * INPUT_SIZE[0]}x{factor * INPUT_SIZE[1]} by {kernel}"] = figures
    return found


def _a0(seconds: float, threads: int, progress: Progress) -> dict[str, float]:
    """Median ms of RepVGG-A0's fused shape, FP32 and INT8."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    inputs = 3
    for width, blocks in A0_STAGES:
        for index in range(blocks):
            layers += [nn.Conv2d(inputs, width, 3, 2 if index == 0 else 1, 1), nn.ReLU()]
            inputs = width
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))
    for module in network:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    model = export(network, [InputShape(None, (1, 3, 224, 224))], None)
    model = with_node_names(onnx.shape_inference.infer_shapes(fuse(model).model))
    samples = [random_inputs(tensor_specs(feeds(model)), 1, seed) for seed in range(2)]
    quantizer = Quantizer(model, lower_precision_core(model), samples, [CPU_INT8], Silent())
    graphs = {"FP32": serialize(model), "INT8": serialize(quantizer.graph(Choice("max"), CPU_INT8))}
    return _latency(graphs, samples[0], seconds, threads, progress)


def _aims(rows: list[Row], latency: Mapping[str, float], small: Mapping[str, float]) -> list[str]:
    """What was aimed at, what was found, reached or missed."""
    base = rows[0]
    lost = {row.name: max(100 * abs(row.figures[name] - base.figures[name]) for name in FIGURES) for row in rows}
    ours = max(lost["INT8 ours"], lost["INT8 ours (TensorRT's graph)"])
    half = lost["FP16 (TensorRT's graph)"]
    speed, small_speed = latency["FP32"] / latency["INT8 ours"], small["FP32"] / small["INT8"]
    found = [
        ("surround (dense 3x3) in INT8", f"{speed:.2f}x faster", "2.5x", speed >= 2.5),
        ("INT8, the figure that moves most, both graphs", f"{ours:.2f} points", "0.3", ours <= 0.3),
        ("FP16, the figure that moves most", f"{half:.2f} points", "0.05", half <= 0.05),
        ("RepVGG-A0's shape (dense 3x3) in INT8", f"{small_speed:.2f}x faster", "3.0x", small_speed >= 3.0),
    ]
    return [f"{what}: {value}, aim {aim}: {'reached' if met else 'missed'}" for what, value, aim, met in found]


def _latency(
    graphs: Mapping[str, bytes], inputs: Mapping[str, Any], seconds: float, threads: int, progress: Progress
) -> dict[str, float]:
    rows = measure(graphs, {1: inputs}, seconds=seconds, threads=threads, progress=progress)
    return {row.graph: row.median_ms for row in rows}


def _change(value: float, base: float, budget: float, is_base: bool) -> str:
    if is_base:
        return f"{value:.4f}"
    points = 100 * (value - base)
    text = f"{value:.4f} ({points:+.2f})"
    return f"[red]{text}[/]" if abs(points) > budget else text


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - started:.0f} s")
