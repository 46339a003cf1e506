"""What bringing large frames to the network's size costs in accuracy, by the kernel, apart from what the renderer does.

    python -m benchmarks.preprocessing
    python -m benchmarks.preprocessing --frames 600

The reference model in FP32, on held-out frames of its own size; on the same frames with every pixel repeated two and
three times, which a kernel that takes the mean gives back as they were; and on frames rendered as large as 1280x768 and
1800x1080. Those are other pictures (the renderer's noise averages out, its thinnest lines are thinner), so there the
exact mean over the covered area is what a kernel is compared with, not the small frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.precision import FIGURES, WEIGHTS, figures_of, surround_network
from build_engine.accuracy import Preprocess
from build_engine.graph import feeds
from build_engine.progress import Bars
from build_engine.session import Session
from engine.manifest import Preprocessing
from surround.dataset import Sample, render_split
from surround.spec import INPUT_SIZE

AIM_POINTS = 0.1
REPEATED = (2, 3)
SIZES = ((1280, 768), (1800, 1080))
"""Twice the network's input, and the largest of its aspect ratio that the renderer draws."""

Image = npt.NDArray[np.uint8]
Figures = dict[str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="(default: %(default)s)")
    parser.add_argument("--frames", type=int, default=120, help="held-out frames (default: %(default)s; all: 600)")
    given = parser.parse_args()
    table = Table(title=f"FP32, {given.frames} held-out frames; change in points", title_justify="left")
    for heading in ("frames", "kernel", "against", *FIGURES, f"within {AIM_POINTS:g}"):
        table.add_column(heading, no_wrap=True)

    def row(frames: str, kernel: str, against: str, found: Figures, base: Figures) -> None:
        points = [100 * (found[name] - base[name]) for name in FIGURES]
        texts = [f"{found[name]:.4f} ({change:+.2f})" for name, change in zip(FIGURES, points, strict=True)]
        within = max(map(abs, points)) <= AIM_POINTS
        table.add_row(frames, kernel, against, *texts, "yes" if within else "no")

    with Bars() as bars:
        model, _ = surround_network(given.weights, bars)
        session, name = Session(model, threads=0), feeds(model)[0].name
        small = list(render_split("heldout", 0, given.frames))

        def judged(title: str, images: Iterator[Image], resize: Callable[[Image], Image]) -> Figures:
            samples: list[Sample] = []
            with bars.step(title, given.frames) as advance:
                for sample, image in zip(small, images, strict=True):
                    samples.append(replace(sample, frame=replace(sample.frame, image=resize(image))))
                    advance()
            return figures_of(lambda batch: session.run({name: batch}), samples)

        base = judged("Small frames", (sample.frame.image for sample in small), lambda image: image)
        table.add_row("as trained", "–", "–", *(f"{base[one]:.4f}" for one in FIGURES), "–")
        for factor in REPEATED:
            repeated = (sample.frame.image.repeat(factor, 0).repeat(factor, 1) for sample in small)
            found = judged(f"Repeated {factor} x", repeated, _deployed(name, "area"))
            row(f"each pixel {factor} x {factor}", "area", "as trained", found, base)
        for width, height in SIZES:
            kernels = {"exact mean": _exact, "area": _deployed(name, "area"), "bilinear": _deployed(name, "bilinear")}
            by_kernel = {
                kernel: judged(f"{width}x{height}, {kernel}", _large(given.frames, (width, height)), resize)
                for kernel, resize in kernels.items()
            }
            exact = by_kernel.pop("exact mean")
            row(f"rendered {width}x{height}", "exact mean", "as trained", exact, base)
            for kernel, found in by_kernel.items():
                row(f"rendered {width}x{height}", kernel, "exact mean", found, exact)
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def _large(frames: int, size: tuple[int, int]) -> Iterator[Image]:
    return (sample.frame.image for sample in render_split("heldout", 0, frames, size=size))


def _exact(image: Image) -> Image:
    return np.asarray(cv2.resize(image, INPUT_SIZE, interpolation=cv2.INTER_AREA), np.uint8)


def _deployed(name: str, kernel: str) -> Callable[[Image], Image]:
    """What a server does, with this kernel in the manifest."""
    spec = Preprocessing.model_validate(
        {"input": name, "color": "rgb", "width": INPUT_SIZE[0], "height": INPUT_SIZE[1], "kernel": kernel}
    )
    preprocess = Preprocess(spec)
    return lambda image: preprocess(image)[0]


if __name__ == "__main__":
    main()
