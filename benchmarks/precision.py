"""FP32, FP16 and INT8 of the reference model, plain INT8 beside the builder's, in one run: latency, size, accuracy.

    python -m benchmarks.precision
    python -m benchmarks.precision --frames 300 --held-out 300 --budget 0.3
    python -m benchmarks.precision --plain max percentile mse entropy

Every graph is judged by the same metric on the same frames, the TensorRT graphs too (ONNX Runtime executes them,
slowly). The search chooses on frames of towns that training never saw; then everything is measured again on frames of
other scenes there, which nothing was chosen on. 'Plain' is one calibration method, weights to the nearest step,
nothing tuned. Latency is the CPU's own graphs', in turns; RepVGG-A0's shape (random weights, 224 x 224) is measured
beside it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from engine.cpu import cpu_name
from surround.dataset import Sample, render_split
from surround.evaluate import collect, score_threshold
from surround.metrics import average_precision, match, relative_distance_error
from surround.spec import INPUT_SIZE, LABELS, MEAN, STD

WEIGHTS = Path("surround/weights/surround.safetensors")
FIGURES = ("mAP50", "distance_error", "drivable_iou")
SCENE_FRAMES = 12
"""Frames of one scene in a split: what lies beside each other shows the same vehicles."""
RECIPES = (CPU_INT8, TENSORRT_INT8)
A0_STAGES = ((48, 1), (48, 2), (96, 4), (192, 14), (1280, 1))
"""Width and blocks of RepVGG-A0's stages (arXiv 2101.03697), each beginning with stride 2."""


@dataclass(frozen=True)
class Row:
    """One graph: its bytes, what the metric says of the frames that the search chose on, and of others."""

    name: str
    data: bytes
    figures: Mapping[str, float]
    held_out: Mapping[str, float]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="frames the search chooses on (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=120, help="frames of other scenes (default: %(default)s)")
    parser.add_argument("--calibration", type=int, default=96, help="frames seen for ranges (default: %(default)s)")
    parser.add_argument("--plain", nargs="+", choices=METHODS, default=["max"], help="plain quantization beside ours")
    parser.add_argument("--budget", type=float, default=0.3, help="points that INT8 may cost (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="threads of one inference (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="time per graph (default: %(default)s)")
    given = parser.parse_args()

    console = Console(width=None if sys.stdout.isatty() else 130)
    with Bars() as bars:
        model, core = surround_network(given.weights, bars)
        with bars.step("Rendering frames", given.calibration + given.frames + given.held_out) as advance:

            def rendered(split: str, start: int, count: int) -> list[Sample]:
                samples = []
                for sample in render_split(split, start, start + count):
                    samples.append(sample)
                    advance()
                return samples

            seen = rendered("train", 0, given.calibration)
            judged = rendered("heldout", 0, given.frames)
            first = -(-given.frames // SCENE_FRAMES) * SCENE_FRAMES
            held_out = rendered("heldout", first, given.held_out)
        rows, said = _graphs(model, core, seen, (judged, held_out), given.plain, given.budget, bars)
        timed = {row.name: row.data for row in rows if "TensorRT" not in row.name}
        frame = {feeds(model)[0].name: judged[0].frame.image[None]}
        latency = _latency(timed, frame, given.seconds, given.threads, bars)
        small = _a0(given.seconds, given.threads, bars)

    machine = f"{given.threads} thread(s) of {cpu_name()}"
    console.print(_table(f"{given.frames} frames that the search chose on; {machine}", rows, latency, given.budget))
    other = [replace(row, figures=row.held_out) for row in rows]
    console.print(
        _table(f"{given.held_out} frames of other scenes, which nothing was chosen on", other, {}, given.budget)
    )
    console.print(said, highlight=False)
    for line in _aims(rows, latency, small):
        console.print(line, highlight=False)


def _table(title: str, rows: list[Row], latency: Mapping[str, float], budget: float) -> Table:
    table = Table(title=f"{title}; change in points", title_justify="left")
    for heading in ("graph", "MB", "ms", "faster", *FIGURES):
        table.add_column(heading, no_wrap=True)
    base = rows[0]
    for row in rows:
        time_ms = latency.get(row.name)
        speed = ("–", "–") if time_ms is None else (f"{time_ms:.2f}", f"{latency[base.name] / time_ms:.2f}x")
        changes = [_change(row.figures[name], base.figures[name], budget, row is base) for name in FIGURES]
        table.add_row(row.name, f"{len(row.data) / 1e6:.2f}", *speed, *changes)
    return table


def surround_network(weights: Path, progress: Progress) -> tuple[onnx.ModelProto, Core]:
    """The reference model's fused float graph, which takes frames, and where it bears lower precision."""
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
    judged: tuple[list[Sample], list[Sample]],
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
    judge, other = (_judge(model, name, frames, store, progress) for frames in judged)
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
            rows.append(Row(label, candidate.data, judge(candidate).figures, other(candidate).figures))
            advance()
    integer = integer_kernels(serialize(graphs["INT8 ours"]))
    said = (
        f"ours: {choice}; noise {tried[0].worst:.4f} plain, {min(one.worst for one in tried):.4f} ours; "
        f"{len(found.kept)} of {len(quantizer.units)} layers kept out; integer kernels: {integer}"
    )
    return rows, said


def _judge(model: onnx.ModelProto, name: str, frames: list[Sample], store: Store, progress: Progress) -> Judge:
    return Judge(model, [], None, Metric("surround", lambda run: figures_of(run, frames), {}, name), store, progress)


def figures_of(run: Any, judged: list[Sample]) -> dict[str, float]:  # noqa: ANN401 - a metric's `run`
    """What the reference model is judged by: mAP50, relative distance error, IoU of the drivable area."""
    answers = collect(run, iter(judged))
    matches = [match(answers.detections, answers.truth, label) for label in range(len(LABELS))]
    return {
        "mAP50": float(np.nanmean([average_precision(found) for found in matches])),
        "distance_error": relative_distance_error(matches, score_threshold()),
        "drivable_iou": answers.area.value,
    }


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
    lost = {row.name: _moved(row.figures, base.figures) for row in rows}
    other = {row.name: _moved(row.held_out, base.held_out) for row in rows}
    ours, ours_other = (max(some[one] for one in some if one.startswith("INT8 ours")) for some in (lost, other))
    half = max(lost["FP16 (TensorRT's graph)"], other["FP16 (TensorRT's graph)"])
    speed, small_speed = latency["FP32"] / latency["INT8 ours"], small["FP32"] / small["INT8"]
    found = [
        ("surround (dense 3x3) in INT8", f"{speed:.2f}x faster", "2.5x", speed >= 2.5),
        ("INT8, the figure that moves most, both graphs", f"{ours:.2f} points", "0.3", ours <= 0.3),
        ("the same on frames that nothing was chosen on", f"{ours_other:.2f} points", "0.3", ours_other <= 0.3),
        ("FP16, the figure that moves most", f"{half:.2f} points", "0.05", half <= 0.05),
        ("RepVGG-A0's shape (dense 3x3) in INT8", f"{small_speed:.2f}x faster", "3.0x", small_speed >= 3.0),
    ]
    return [f"{what}: {value}, aim {aim}: {'reached' if met else 'missed'}" for what, value, aim, met in found]


def _moved(figures: Mapping[str, float], base: Mapping[str, float]) -> float:
    """Points by which the figure that moved most moved, whichever way."""
    return max(100 * abs(figures[name] - base[name]) for name in FIGURES)


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
