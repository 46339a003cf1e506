"""Everything a build, or the fuser alone, can be told, with its defaults: the one place that has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from build_engine.camera_input import CameraInput
from build_engine.load.shapes import InputShape
from build_engine.quantize.calibration import Method
from engine.manifest import FreeDimension, Precision, Target

NVIDIA_TARGETS: tuple[Target, ...] = ("rtx", "gpu", "jetson-orin", "jetson-thor", "drive-orin", "drive-thor")
LACKING: Mapping[Precision, tuple[Target, ...]] = {
    "bf16": ("cpu",),
    "fp8": ("cpu", "jetson-orin", "drive-orin"),
}
"""Targets without kernels for a precision. NVIDIA GPUs have BF16 from compute capability 8.0 on (Orin is 8.7) and FP8
from 8.9 on (Ada, Thor)."""
RemoveResiduals = Literal["off", "on", "auto"]
COMPILED_HERE: tuple[Target, ...] = ("rtx", "gpu")
"""Targets whose plans a build machine can compile: RTX needs no GPU, `gpu` needs the one that will serve."""


@dataclass(frozen=True)
class BuildOptions:
    """What to build from what.

    Attributes:
        model: `x.onnx`, `x.pt2`, `package.module:factory` or `timm:name`.
        output: Directory of the bundle, or a name ending in `.zip`.
        weights: Trained weights for a Python model.
        input_shapes: Shapes of the model's inputs.
        precision: What is served. The float graph is in every bundle.
        calibration_data: Folder of frames, or of `.npz` files for a model of tensors.
        calibration_frames: Most samples that are used, evenly spaced over the folder.
        calibration_method: How a tensor's 8-bit range is chosen; None tries every method and takes what makes least
            noise, which differs from network to network.
        max_accuracy_drop: Points that lower precision may cost, by the metric where there is one, else in agreement
            with the float graph; layers that cost more stay out of it. None quantizes all that can be and reports.
        search_cache: Folder for what a search measured, so that the next one need not; None is the user's cache.
        targets: Where it will run.
        camera: What the network was trained on; None leaves its inputs as they are.
        resize: How a frame of another size is fitted.
        postprocess: File with the fields of `DetectionPostprocessing`; None answers tensors.
        remove_residuals: What becomes of `relu(F(x) + x)`: left, turned into a plain chain, or whichever is measured to
            be better (see `build_engine.shortcuts`).
        name: Name of the bundle; None takes the model's.
        version: Version of the bundle.
        max_batch: Largest batch.
        dimensions: Sizes of the dimensions besides the batch that stay free, by name.
        metric: `package.module:function` that measures accuracy on labelled data.
        metric_args: Keyword arguments for it.
        opset: ONNX operator set; None keeps a file's own and exports the default.
        tolerance: Largest error of the fused graph, relative to an output's largest value; None bounds it by 2.5 times
            the unfused graph's own rounding.
        verify_frames: Samples on which fused and unfused graph are compared, beside two random ones.
        evaluation_frames: Samples on which precisions are compared.
        reference_cases: Inputs stored with their outputs.
        latency_seconds: Time spent measuring each graph at each batch size; 0 measures nothing.
        threads: Threads of one inference while measuring.
    """

    model: str
    output: Path
    weights: Path | None = None
    input_shapes: tuple[InputShape, ...] = ()
    precision: Precision = "fp32"
    calibration_data: Path | None = None
    calibration_frames: int = 128
    calibration_method: Method | None = None
    max_accuracy_drop: float | None = None
    search_cache: Path | None = None
    targets: tuple[Target, ...] = ("cpu",)
    camera: CameraInput | None = None
    resize: Literal["letterbox", "stretch", "crop"] = "letterbox"
    postprocess: Path | None = None
    remove_residuals: RemoveResiduals = "off"
    name: str | None = None
    version: str = "1"
    max_batch: int = 8
    dimensions: Mapping[str, FreeDimension] = field(default_factory=dict)
    metric: str | None = None
    metric_args: Mapping[str, Any] = field(default_factory=dict)
    opset: int | None = None
    tolerance: float | None = None
    verify_frames: int = 4
    evaluation_frames: int = 32
    reference_cases: int = 3
    latency_seconds: float = 1.0
    threads: int = 1


@dataclass(frozen=True)
class FuseRequest:
    """What to fuse, and how.

    Attributes:
        model: As for a build.
        output: The `.onnx` file to write.
        weights: Trained weights for a Python model.
        input_shapes: Sizes for inputs whose own are free.
        opset: For a Python model; None exports the default.
        target: Whose cost model decides.
        remove_residuals: What becomes of shortcuts.
        verify: Whether to run both graphs and compare.
        latency_seconds: Time for measuring each form, where shortcuts can be removed.
        threads: Threads of one inference while measuring.
    """

    model: str
    output: Path
    weights: Path | None = None
    input_shapes: tuple[InputShape, ...] = ()
    opset: int | None = None
    target: Target = "cpu"
    remove_residuals: RemoveResiduals = "off"
    verify: bool = True
    latency_seconds: float = 1.0
    threads: int = 1
