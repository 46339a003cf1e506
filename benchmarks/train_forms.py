"""The reference network trained in RepVGG's and in QARepVGG's form, alike but for the form: what INT8 costs each.

    python -m benchmarks.train_forms                         train both forms with two seeds each, then the tables
    python -m benchmarks.train_forms --steps 300 --seeds 1   a quick look; the accuracies mean little

Both forms see the same frames (320x192) in the same order and start from the same kernels, once per seed. What has been
trained stays in the output folder; delete it to train again. 'Plain' is the largest value as range, weights per channel
to the nearest step, nothing tuned. The last table is why: what is rounded in steps of the largest value loses the more,
the further that is above the rest. It has the committed weights too.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from benchmarks.backbones import at_compared_size, half, train, training_frames, training_plan
from benchmarks.precision import FIGURES, SCENE_FRAMES, WEIGHTS, figures_of
from build_engine.camera_input import CameraInput, subtract_in_rows, takes_frames
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.graph import Tensors, constants, feeds
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from build_engine.progress import Bars, Progress
from build_engine.quantize import (
    CPU_INT8,
    PLAIN,
    TENSORRT_INT8,
    Choice,
    Core,
    Judge,
    Metric,
    Noise,
    Quantizer,
    Search,
    Store,
    best_choice,
    fused_arithmetic,
    lower_precision_core,
)
from build_engine.quantize.core import with_node_names
from build_engine.quantize.statistics import watched
from build_engine.session import Session
from surround.backbones import COMPARED_SIZE
from surround.dataset import Sample, render_split
from surround.model import FORMS, Deployed, SurroundNet
from surround.spec import MEAN, STD, STRIDE
from surround.train import Trainer, save_weights

RECIPES = (CPU_INT8, TENSORRT_INT8)


@dataclass(frozen=True)
class Frames:
    """Frames to calibrate with, to choose on and to tell the outcome of."""

    seen: list[Sample]
    judged: list[Sample]
    others: list[Sample]


@dataclass(frozen=True)
class Way:
    """One way to INT8 of one network.

    Attributes:
        name: Of the way.
        noise: Relative error before decoding, per runtime's graph.
        changes: Points against FP32 per runtime's graph, by figure, on frames that nothing was chosen on.
        kept: Layers that stay out for the budget; None where no number of them keeps it.
    """

    name: str
    noise: Sequence[float]
    changes: Sequence[Mapping[str, float]]
    kept: int | None


@dataclass(frozen=True)
class Measured:
    """One trained network.

    Attributes:
        name: Its form and seed.
        figures: What it reaches in FP32.
        ways: To INT8.
        layers: How many could stay out.
    """

    name: str
    figures: Mapping[str, float]
    ways: Sequence[Way]
    layers: int


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="of 16 frames each (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="(default: 1 2)")
    parser.add_argument("--threads", type=int, default=2, help="threads of the training (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=0.3, help="points that INT8 may cost (default: %(default)s)")
    parser.add_argument("--calibration", type=int, default=96, help="frames seen for ranges (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="frames the search chooses on (default: %(default)s)")
    parser.add_argument("--held-out", type=int, default=468, help="frames of other scenes (default: %(default)s)")
    parser.add_argument(
        "--rendered", type=Path, default=Path("out/backbones"), help="training frames, 5 GB (default: %(default)s)"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("out/train_forms"), help="(default: %(default)s)")
    given = parser.parse_args()

    with Bars() as bars:
        names = [(form, seed) for seed in given.seeds for form in FORMS]
        for form, seed in names:
            if not (given.output / f"{form}-{seed}.json").exists():
                _train(form, seed, given, bars)
        first = -(-given.frames // SCENE_FRAMES) * SCENE_FRAMES
        with bars.step("Rendering frames to judge on"):
            frames = Frames(
                list(render_split("train", 0, given.calibration)),
                list(render_split("heldout", 0, given.frames)),
                list(render_split("heldout", first, first + given.held_out)),
            )
        measured, spreads = [], {}
        for form, seed in names:
            module = Deployed(SurroundNet(form=form), COMPARED_SIZE).eval()
            module.load_state_dict(load_file(given.output / f"{form}-{seed}.safetensors"))
            model, core = _fused(module)
            name = f"{form}, seed {seed}"
            measured.append(_measured(name, model, core, frames, given.budget, bars))
            spreads[name] = _spread(model, core, [half(sample.frame.image) for sample in frames.seen])
        committed = Deployed(SurroundNet()).eval()
        committed.load_state_dict(load_file(WEIGHTS))
        spreads["committed weights"] = _spread(*_fused(committed), [sample.frame.image for sample in frames.seen])
    _print(measured, spreads, given)


def _train(form: str, seed: int, given: argparse.Namespace, progress: Progress) -> None:
    plan = training_plan(given.steps, given.threads, seed, form)
    given.output.mkdir(parents=True, exist_ok=True)
    name = f"{form}-{seed}"
    trainer = Trainer(plan, training_frames(given.rendered, progress))
    spent = train(name, trainer, given.output / f"{name}.checkpoint.pt", progress)
    module = Deployed(SurroundNet(form=form), COMPARED_SIZE)
    module.network.load_state_dict(trainer.averaged.state_dict())
    save_weights(module, given.output / f"{name}.safetensors")
    (given.output / f"{name}.json").write_text(json.dumps({"steps": given.steps, "core_minutes": spent / 60}) + "\n")


def _fused(module: Deployed) -> tuple[onnx.ModelProto, Core]:
    """The float graph that takes frames (1, H, W, 3) uint8, and where it bears lower precision."""
    exported = export(module, [InputShape("frames", (1, 3, STRIDE * module.rows, STRIDE * module.columns))], None)
    result = fuse(takes_frames(exported, CameraInput("rgb", MEAN, STD)))
    model = subtract_in_rows(with_node_names(onnx.shape_inference.infer_shapes(result.model, data_prop=True)))
    return model, lower_precision_core(model, fused_arithmetic(result.report))


def _measured(
    name: str, model: onnx.ModelProto, core: Core, frames: Frames, budget: float, progress: Progress
) -> Measured:
    feed = feeds(model)[0].name
    samples = [{feed: half(sample.frame.image)[None]} for sample in frames.seen]
    quantizer = Quantizer(model, core, samples, RECIPES, progress)
    store = Store(None, progress)
    noise = Noise(model, core, samples[:: max(1, len(samples) // 8)], store)
    judge, other = (_judge(model, feed, some, store, progress) for some in (frames.judged, frames.others))
    choice, _ = best_choice(quantizer, noise, None, progress)

    def way(label: str, one: Choice) -> Way:
        try:
            kept: int | None = len(_search(quantizer, one, judge, noise, budget, store, progress).run().kept)
        except BuildError as error:
            progress.note(str(error))
            kept = None
        made = quantizer.candidates(one)
        figures = [other(candidate).figures for candidate in made.values()]
        changes = [{key: 100 * (some[key] - other.reference[key]) for key in FIGURES} for some in figures]
        return Way(label, [noise(candidate) for candidate in made.values()], changes, kept)

    return Measured(name, other.reference, [way("plain", PLAIN), way(str(choice), choice)], len(quantizer.units))


def _judge(model: onnx.ModelProto, feed: str, frames: list[Sample], store: Store, progress: Progress) -> Judge:
    metric = Metric("surround", lambda run: figures_of(at_compared_size(run), frames), {}, feed)
    return Judge(model, [], None, metric, store, progress)


def _search(
    quantizer: Quantizer, choice: Choice, judge: Judge, noise: Noise, budget: float, store: Store, progress: Progress
) -> Search:
    return Search(
        tuple(quantizer.units),
        lambda kept: quantizer.candidates(choice.without(kept)),
        judge, noise, budget, "INT8", store, progress,
    )  # fmt: skip


SPREADS = (
    "kernel: largest / deviation",
    "output channel: largest / rms",
    "activation: largest / rms",
    "activation: largest channel / median channel",
)


def _spread(model: onnx.ModelProto, core: Core, images: Sequence[np.ndarray]) -> dict[str, list[float]]:
    """How far the largest value of what INT8 rounds is above the rest, per layer.

    A whole kernel is what the paper shows; a scale per output channel leaves what is inside of one.
    """
    fixed = constants(model)
    layers = [node for node in model.graph.node if node.name in (*core.weighted, *core.last) and node.op_type == "Conv"]
    kernels = [fixed[node.input[1]].astype(np.float64) for node in layers]
    found: dict[str, list[float]] = {SPREADS[0]: [float(np.abs(kernel).max() / kernel.std()) for kernel in kernels]}
    rows = [kernel.reshape(len(kernel), -1) for kernel in kernels]
    found[SPREADS[1]] = [float(np.mean(np.abs(row).max(1) / np.sqrt(np.square(row).mean(1)))) for row in rows]
    names = list(dict.fromkeys(node.input[0] for node in layers if node.name not in core.first))
    peaks, squares = _activations(model, names, [{feeds(model)[0].name: image[None]} for image in images])
    found[SPREADS[2]] = [float(peaks[name].max() / np.sqrt(squares[name])) for name in names]
    found[SPREADS[3]] = [float(peaks[name].max() / np.median(peaks[name])) for name in names]
    return found


def _activations(
    model: onnx.ModelProto, names: list[str], samples: Sequence[Tensors]
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Largest magnitude per channel, and mean square, of activations over the samples."""
    session = Session(watched(model, names), threads=0)
    peaks: dict[str, np.ndarray] = {}
    squares = dict.fromkeys(names, 0.0)
    for sample in samples:
        for name, array in session.run(sample, names).items():
            peak = np.abs(array).max((0, 2, 3))
            peaks[name] = np.maximum(peaks.get(name, peak), peak)
            squares[name] += float(np.mean(np.square(array, dtype=np.float64))) / len(samples)
    return peaks, squares


def _print(
    measured: Sequence[Measured], spreads: Mapping[str, Mapping[str, list[float]]], given: argparse.Namespace
) -> None:
    console = Console(width=170)
    title = f"{given.steps} steps; {given.held_out} frames that nothing was chosen on"
    table = Table(title=f"{title}; change in points, CPU's / TensorRT's graph", title_justify="left")
    for heading in ("network", "INT8", "noise", *FIGURES, f"kept out for {given.budget}"):
        table.add_column(heading)
    for one in measured:
        table.add_row(one.name, "none: FP32", "–", *(f"{one.figures[key]:.4f}" for key in FIGURES), "–")
        for way in one.ways:
            noise = " / ".join(f"{value:.3f}" for value in way.noise)
            changes = [" / ".join(f"{change[key]:+.2f}" for change in way.changes) for key in FIGURES]
            kept = "not kept" if way.kept is None else f"{way.kept} of {one.layers}"
            table.add_row("", way.name, noise, *changes, kept)
    console.print(table)
    table = Table("network", *SPREADS, title="Median layer, worst layer", title_justify="left")
    for name, spread in spreads.items():
        table.add_row(name, *(f"{np.median(spread[key]):.1f}, {max(spread[key]):.1f}" for key in SPREADS))
    console.print(table)
    for name in (f"{form}-{seed}" for seed in given.seeds for form in FORMS):
        spent = json.loads((given.output / f"{name}.json").read_text())["core_minutes"]
        console.print(f"{name}: trained in {spent:.1f} minutes of one core", highlight=False)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - started:.0f} s")
