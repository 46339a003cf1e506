"""A classifier of the reference network's blocks, trained here: does plain INT8 collapse, and what is recovered?

    python -m benchmarks.classifier
    python -m benchmarks.classifier --form qarepvgg

It tells cars, trucks, cyclists, pedestrians and empty street apart, in crops of rendered frames; it is trained on the
training towns and judged in a town that it has never seen. 'Plain' is weights per channel and activations by their
largest values, nothing tuned.

The second table is a harder case, made on purpose: channels of the trained network are rescaled, which changes nothing
in FP32 and is undone in the next layer. Weight decay on three branches does that to large RepVGGs over hundreds of
epochs; minutes of training a small one may not.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from build_engine.compile.cpu import kernels
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from build_engine.progress import Bars, Progress
from build_engine.quantize import (
    CPU_INT8,
    PLAIN,
    TENSORRT_INT8,
    Judge,
    Metric,
    Noise,
    Quantizer,
    Search,
    Store,
    best_choice,
    lower_precision_core,
)
from build_engine.quantize.core import with_node_names
from build_engine.quantize.equalize import equalizable, rescale
from surround.dataset import render_split
from surround.model import DEFAULT_FORM, FORMS, stage
from surround.spec import LABELS

SIZE = 48
STREET = len(LABELS)
RECIPES = (CPU_INT8, TENSORRT_INT8)
BUDGET_POINTS = 0.5

Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Crops:
    """`(n, 48, 48, 3)` uint8 RGB and `(n,)` class indices, the last of which is empty street."""

    images: Images
    labels: npt.NDArray[np.int64]

    def tensor(self, chosen: npt.NDArray[np.int64] | slice) -> Tensor:
        """Normalised images `(n, 3, 48, 48)`."""
        return torch.from_numpy((self.images[chosen].astype(np.float32) - 118) / 58).permute(0, 3, 1, 2).contiguous()


class Classifier(nn.Module):
    """Twelve of the reference network's blocks at strides 2 to 16, averaged, one linear layer."""

    def __init__(self, form: str) -> None:
        super().__init__()
        widths, depths = (24, 32, 64, 128), (1, 3, 4, 4)
        inputs = (3, *widths)
        self.features = nn.Sequential(
            *(stage(FORMS[form], *some) for some in zip(inputs[:-1], widths, depths, strict=True))
        )
        self.head = nn.Linear(widths[-1], len(LABELS) + 1)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, 48, 48) to logits (N, 5)."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


def main() -> None:
    """Train, quantize, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=FORMS, default=DEFAULT_FORM, help="of the blocks (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="of training, 64 crops each (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=400, help="rendered per split (default: %(default)s)")
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="of training (default: %(default)s)")
    given = parser.parse_args()
    with Bars() as bars:
        with bars.step("Cropping", 2):
            seen, judged = crops("train", given.frames), crops("heldout", given.frames)
        network = train(given.form, seen, given.steps, given.weight_decay, bars)
        exported = export(network, [InputShape(None, (1, 3, SIZE, SIZE))], None)
        model = with_node_names(onnx.shape_inference.infer_shapes(fuse(exported).model))
        tables = [_measured(f"{given.form} as trained", model, seen, judged, bars)]
        tables.append(_measured(f"{given.form}, harder: channels rescaled", harder(model), seen, judged, bars))
    console = Console(width=None if sys.stdout.isatty() else 130)
    for table in tables:
        console.print(table)


def crops(split: str, frames: int) -> Crops:
    """Every labelled box of at least 14 pixels, and as many places without one as cars."""
    images, labels = [], []
    draw = np.random.default_rng(0)
    for sample in render_split(split, 0, frames):
        truth, image = sample.frame.truth, sample.frame.image
        for box, label, ignored in zip(truth.boxes, truth.labels, truth.ignored, strict=True):
            side = 1.15 * max(box[2] - box[0], box[3] - box[1])
            if not ignored and side >= 14:
                images.append(_crop(image, (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, side))
                labels.append(int(label))
        x, y, side = draw.uniform(40, 600), draw.uniform(150, 350), draw.uniform(20, 90)
        inside = [b for b in truth.boxes if abs((b[0] + b[2]) / 2 - x) < side and abs((b[1] + b[3]) / 2 - y) < side]
        if not inside:
            images.append(_crop(image, x, y, side))
            labels.append(STREET)
    return Crops(np.stack(images), np.array(labels))


def _crop(image: Images, x: float, y: float, side: float) -> Images:
    scale = SIZE / side
    move = np.array([[scale, 0, SIZE / 2 - scale * x], [0, scale, SIZE / 2 - scale * y]])
    found = cv2.warpAffine(image, move, (SIZE, SIZE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.uint8)


def train(form: str, seen: Crops, steps: int, decay: float, progress: Progress) -> nn.Module:
    """SGD with RepVGG's settings (weight decay 1e-4): momentum 0.9, one cosine from 0.1."""
    torch.manual_seed(0)
    network = Classifier(form)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=decay, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    share = 1 / np.bincount(seen.labels, minlength=STREET + 1).clip(1)
    chance = share[seen.labels] / share[seen.labels].sum()
    draw = np.random.default_rng(0)
    with progress.step(f"Training {form} on {len(seen.labels)} crops", steps) as advance:
        for _ in range(steps):
            chosen = draw.choice(len(chance), 64, p=chance)
            images = seen.tensor(chosen)
            images = images.flip(3) if draw.random() < 0.5 else images
            images = images * float(draw.uniform(0.8, 1.2)) + float(draw.uniform(-0.3, 0.3))
            loss = nn.functional.cross_entropy(network(images), torch.from_numpy(seen.labels[chosen]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch has no type for it
            optimizer.step()
            schedule.step()
            advance()
    return network.eval()


def harder(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function in FP32, its channels rescaled by up to 30 either way."""
    draw = np.random.default_rng(0)
    groups = equalizable(model)
    return rescale(model, groups, [30 ** draw.uniform(-1, 1, group.size) for group in groups])


def _measured(title: str, model: onnx.ModelProto, seen: Crops, judged: Crops, progress: Progress) -> Table:
    core = lower_precision_core(model)
    chosen = np.linspace(0, len(seen.labels) - 1, min(128, len(seen.labels))).round().astype(int)
    samples = [{"image": seen.tensor(slice(n, n + 1)).numpy()} for n in chosen]
    quantizer = Quantizer(model, core, samples, RECIPES, progress)
    store = Store(None, progress)
    noise = Noise(model, core, samples[::8], store)
    choice, _ = best_choice(quantizer, noise, None, progress)
    metric = Metric("top-1", lambda run: {"top-1": accuracy(run, judged)}, {}, "image")
    judge = Judge(model, [], None, metric, store, progress)
    search = Search(
        tuple(quantizer.units),
        lambda kept: quantizer.candidates(choice.without(kept)),
        judge, noise, BUDGET_POINTS, "INT8", store, progress,
    )  # fmt: skip
    table = Table(title=title, title_justify="left")
    for heading in ("INT8", "top-1, CPU's graph", "top-1, TensorRT's graph", "convolutions on integers"):
        table.add_column(heading)
    base = float(judge.reference["top-1"])
    table.add_row("none: FP32", *[f"{100 * base:.2f}"] * 2, "–")
    rows = {"plain": PLAIN, f"ours: {choice}": choice}
    try:
        found = search.run()
        if found.kept:
            rows[f"ours, {len(found.kept)} layers kept out"] = choice.without(found.kept)
    except BuildError as error:
        progress.note(str(error))
    for name, one in rows.items():
        made = quantizer.candidates(one)
        scores = [judge(candidate).figures["top-1"] for candidate in made.values()]
        said = [f"{100 * score:.2f} ({100 * (score - base):+.2f})" for score in scores]
        integer = kernels(made[CPU_INT8.name].data)["QLinearConv"]
        total = sum(node.op_type == "Conv" for node in model.graph.node)
        table.add_row(name, *said, f"{integer} of {total}")
    return table


def accuracy(run: Any, judged: Crops) -> float:  # noqa: ANN401 - a metric's `run`
    """Share of crops whose largest logit is their class."""
    hits = 0
    for start in range(0, len(judged.labels), 128):
        part = slice(start, start + 128)
        (logits,) = run(judged.tensor(part).numpy()).values()
        hits += int((logits.argmax(axis=1) == judged.labels[part]).sum())
    return hits / len(judged.labels)


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"in {time.perf_counter() - started:.0f} s")
