"""How long the search for the layers to keep out takes on a network of 30 layers, and what a second budget costs.

    python -m benchmarks.search
    python -m benchmarks.search --budgets 0.1 0.4

A RepVGG of 29 blocks (four branches each) and a linear layer, built as `python -m build_engine build --precision int8
--max-accuracy-drop` does it, for the CPU's and TensorRT's graph at once. Its weights are random and its norms are those
of rendered frames: what it answers means nothing, but every layer costs some agreement, so the search has to work.
CPU time is that of the build's own process, all threads: it says what changed on a machine that others use too.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnx
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from build_engine.errors import BuildError
from build_engine.load.shapes import InputShape
from build_engine.load.torch_export import export
from build_engine.options import BuildOptions
from build_engine.pipeline import build
from build_engine.progress import Bars
from surround.dataset import render_split
from surround.model import Block

SIDE = 224
STAGES = ((32, 2), (64, 6), (128, 14), (256, 7))
"""Width and blocks of each stage, which begins with stride 2."""
CLASSES = 100
FRAMES = 32


class Network(nn.Module):
    """29 blocks in RepVGG form, averaged, one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width, blocks in STAGES:
            for index in range(blocks):
                layers.append(Block(inputs, width, 2 if index == 0 else 1))
                inputs = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(inputs, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Normalised images (N, 3, 224, 224) to logits (N, 100)."""
        logits: Tensor = self.head(self.features(image).mean((2, 3)))
        return logits


@dataclass
class Hearing:
    """Passes progress on to bars and keeps what the search says before it begins."""

    bars: Bars
    announced: str = ""

    def step(self, title: str, total: int | None = None) -> AbstractContextManager[Callable[[], None]]:
        """Show a bar."""
        return self.bars.step(title, total)

    def note(self, text: str) -> None:
        """Print it, and keep it if it is the search's."""
        self.bars.note(text)
        if "searching which of" in text:
            self.announced = text.rpartition(", ")[2]


def main() -> None:
    """Build with each budget in turn and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budgets", type=float, nargs="+", default=[0.1, 0.2], metavar="POINTS",
        help="of agreement with FP32, one build each (default: 0.1 0.2)",
    )  # fmt: skip
    given = parser.parse_args()
    table = Table(title="30 layers, 224x224: builds within a budget, one after the other", title_justify="left")
    for heading in ("budget", "drop", "layers kept out", "judged", "announced", "s in all", "s of CPU time"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as name, Bars() as bars:
        folder = Path(name)
        options = _prepared(folder)
        for number, budget in enumerate(given.budgets):
            hearing, started, computed = Hearing(bars), time.perf_counter(), time.process_time()
            try:
                built = build(replace(options, max_accuracy_drop=budget, output=folder / str(number)), hearing)
                assert built.lowered and built.lowered.found  # noqa: S101 - a budget was given
                found = built.lowered.found
                row = [f"{found.drop:.3f}", f"{len(found.kept)} of 29", str(len(found.trials))]
            except BuildError as error:
                row = [str(error), "–", "–"]
            seconds = time.perf_counter() - started, time.process_time() - computed
            table.add_row(f"{budget:g}", *row, hearing.announced or "–", *(f"{one:.0f}" for one in seconds))
    Console(width=None if sys.stdout.isatty() else 130).print(table)


def _prepared(folder: Path) -> BuildOptions:
    frames = np.concatenate([_normalised(sample.frame.image) for sample in render_split("train", 0, FRAMES)])
    model = _network(torch.from_numpy(frames))
    onnx.save(model, folder / "repvgg30.onnx")
    (folder / "frames").mkdir()
    np.save(folder / "frames" / "frames.npy", frames)
    return BuildOptions(
        model=str(folder / "repvgg30.onnx"),
        output=folder / "bundle",
        precision="int8",
        calibration_data=folder / "frames",
        search_cache=folder / "measured",
        targets=("cpu", "rtx"),
        max_batch=1,
        latency_seconds=0,
    )


def _normalised(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    return np.ascontiguousarray(((small - 118) / 58).transpose(2, 0, 1)[None])


def _network(frames: Tensor) -> onnx.ModelProto:
    torch.manual_seed(0)
    network = Network()
    with torch.no_grad():
        network.train()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the running figures are then the frames' mean
        network(frames)
    return export(network.eval(), [InputShape(None, (1, 3, SIDE, SIDE))], None)


if __name__ == "__main__":
    main()
