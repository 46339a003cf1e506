"""What a bundle says about itself: `manifest.json`, schema version 1.

It holds no measurement, time or host name, so the same inputs make the same bytes; `report.json` has the
measurements.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import BundleInvalid
from engine.tensors import TensorSpec

SCHEMA_VERSION: Literal[1] = 1

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
Target = Literal["cpu", "rtx", "gpu", "jetson-orin", "jetson-thor", "drive-orin", "drive-thor"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def bundle_path(path: str) -> str:
    """A path that stays inside the bundle, spelled in the one way there is.

    Raises:
        ValueError: It is absolute, climbs out, has empty parts, a backslash or characters that do not print.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in path or not path.isprintable():
        raise ValueError(f"{path!r} must be a relative path inside the bundle")
    return path


BundlePath = Annotated[str, AfterValidator(bundle_path)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Preprocessing(_Section):
    """How a camera's frame becomes the engine's `uint8` NHWC input.

    Scale and mean are part of the graph: what is left is geometry and colour order.

    Attributes:
        input: Name of the engine input that takes frames, shape `("batch", height, width, channels)`.
        color: Channel order the network expects.
        value_range: `full` is 0 to 255; `limited` is 16 to 235.
        width: Columns of the network input.
        height: Rows of the network input.
        resize: `letterbox` keeps the aspect ratio and fills the rest with `pad_value`; `crop` keeps it and uses the
            middle of the frame, `stretch` does not keep it.
        kernel: Interpolation. `area` averages when it shrinks (`engine.area`) and is bilinear when it
            enlarges.
        pad_value: Grey level of the fill.
    """

    input: str
    color: Literal["rgb", "bgr", "gray"]
    value_range: Literal["full", "limited"] = "full"
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    resize: Literal["letterbox", "stretch", "crop"] = "letterbox"
    kernel: Literal["area", "bilinear", "nearest", "bicubic"] = "area"
    pad_value: int = Field(default=114, ge=0, le=255)

    @property
    def channels(self) -> int:
        """Channels of the network input."""
        return 1 if self.color == "gray" else 3

    def check_input(self, inputs: tuple[TensorSpec, ...]) -> None:
        """Check that one of an engine's inputs is what frames are turned into.

        Raises:
            ValueError: None is, or it has another type or shape.
        """
        made = TensorSpec(name=self.input, dtype="uint8", shape=("batch", self.height, self.width, self.channels))
        fed = next((spec for spec in inputs if spec.name == self.input), None)
        if fed is None:
            raise ValueError(f"preprocessing feeds {self.input!r}, which is no input")
        if fed != made:
            raise ValueError(
                f"preprocessing makes {made.dtype}{list(made.shape)}, "
                f"input {self.input!r} is {fed.dtype}{list(fed.shape)}"
            )


class TensorPostprocessing(_Section):
    """The outputs are answered as tensors."""

    kind: Literal["tensors"] = "tensors"


class DetectionPostprocessing(_Section):
    """The outputs are decoded into detections. Names are output names of the engine.

    Attributes:
        labels: Class names by index.
        scores: `(N, K)` float, best first or not.
        classes: `(N, K)` integer index into `labels`.
        boxes: `(N, K, 4)` float, `x_min, y_min, x_max, y_max` in network-input pixels.
        distances: `(N, K)` float metres at `reference_focal_px`, or None.
        reference_focal_px: Focal length, in network-input pixels, for which `distances` are true. A camera with
            another one sees the same object at another size, so the metres scale by the ratio (virtual depth,
            Cube R-CNN, arXiv 2207.10660).
        drivable: `(N, 1, h, w)` float probability, or None.
        score_threshold: Detections below it are not answered.
    """

    kind: Literal["detections"] = "detections"
    labels: tuple[str, ...] = Field(min_length=1)
    scores: str
    classes: str
    boxes: str
    distances: str | None = None
    reference_focal_px: float | None = Field(default=None, gt=0)
    drivable: str | None = None
    score_threshold: float = Field(default=0.3, ge=0, le=1)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every engine output that is read."""
        names = (self.scores, self.classes, self.boxes, self.distances, self.drivable)
        return tuple(name for name in names if name is not None)

    @model_validator(mode="after")
    def _focal_with_distance(self) -> DetectionPostprocessing:
        if (self.distances is None) != (self.reference_focal_px is None):
            raise ValueError("distances and reference_focal_px are given together or not at all")
        return self


Postprocessing = Annotated[TensorPostprocessing | DetectionPostprocessing, Field(discriminator="kind")]


class FreeDimension(_Section):
    """A dimension, other than the batch, that every request chooses for itself.

    Attributes:
        smallest: The smallest size that is served. 0 where a request may send nothing of it, where only a run tells the
            size, and in manifests of before there was a smallest size.
        usual: The size that the build was measured with, and that plans of TensorRT are tuned for.
        largest: The largest size that is served: memory is laid out for it.
    """

    smallest: int = Field(default=0, ge=0)
    usual: int = Field(ge=1)
    largest: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> FreeDimension:
        if not self.smallest <= self.usual <= self.largest:
            raise ValueError(f"the smallest, the usual and the largest size are {self}: they must not fall")
        return self

    def holds(self, size: int) -> bool:
        """Whether a size is served."""
        return self.smallest <= size <= self.largest

    def __str__(self) -> str:
        """As `--dimension` takes it: `smallest:usual:largest`."""
        return f"{self.smallest}:{self.usual}:{self.largest}"


class GraphEntry(_Section):
    """One ONNX graph.

    Attributes:
        path: File in the bundle.
        precision: Precision of its arithmetic.
        targets: Targets that it serves. The graph listed first for a target is the one to serve.
        cpu_features: Instruction sets without which an INT8 graph computes other numbers (saturation), by the names of
            /proc/cpuinfo. `a|b` means that either will do.
    """

    path: BundlePath
    precision: Precision
    targets: tuple[Target, ...]
    cpu_features: tuple[str, ...] = ()


class PlanEntry(_Section):
    """One engine compiled at build time.

    Attributes:
        path: File in the bundle.
        graph: Name of the graph it was compiled from.
        target: Target it serves.
        key: Everything a plan depends on; it is opened only where all of it matches.
    """

    path: BundlePath
    graph: str
    target: Target
    key: dict[str, str]


class FileEntry(_Section):
    """Digest and size of one file."""

    sha256: Sha256
    size_bytes: int = Field(ge=0)


class Provenance(_Section):
    """Where the bundle comes from.

    Attributes:
        source: File name or import path of the model as it was given.
        source_sha256: Digest of its bytes (of the weights, for a Python factory).
        calibration_sha256: Digest over the calibration frames, in order; None without calibration.
        opset: ONNX opset of the graphs.
        ir_version: ONNX IR version of the graphs.
        tools: Version per tool that took part.
    """

    source: str
    source_sha256: Sha256
    calibration_sha256: Sha256 | None = None
    opset: int
    ir_version: int
    tools: dict[str, str]


class Manifest(_Section):
    """Everything a server needs to know before it opens a file.

    Attributes:
        graphs: Graph per name: `float`, `cpu-int8`, `trt-int8`, `trt-fp16`, `trt-bf16`, `trt-fp8`.
        reference: Files of reference inputs and outputs (`.npz`), to verify an engine where it runs.
        files: Every file but the manifest, the report and `SHA256SUMS`.
        max_batch: Largest batch that the bundle was built for.
        dimensions: Every other dimension of inputs and outputs that is chosen at run time, by name.
    """

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    version: str = Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z_.+-]{0,63}$")
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    max_batch: int = Field(ge=1)
    dimensions: dict[str, FreeDimension] = {}
    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing = TensorPostprocessing()
    graphs: dict[str, GraphEntry] = Field(min_length=1)
    plans: tuple[PlanEntry, ...] = ()
    reference: tuple[BundlePath, ...] = ()
    files: dict[BundlePath, FileEntry]
    provenance: Provenance

    @model_validator(mode="after")
    def _names_exist(self) -> Manifest:
        paths = [
            *(graph.path for graph in self.graphs.values()),
            *(plan.path for plan in self.plans),
            *self.reference,
        ]
        if missing := sorted(set(paths) - set(self.files)):
            raise ValueError(f"no digest for {', '.join(missing)}")
        if unknown := sorted({plan.graph for plan in self.plans} - set(self.graphs)):
            raise ValueError(f"plans of unknown graphs: {', '.join(unknown)}")
        tensors = [spec.name for spec in (*self.inputs, *self.outputs)]
        if twice := sorted({name for name in tensors if tensors.count(name) > 1}):
            raise ValueError(f"two tensors are called {', '.join(twice)}")
        free = {name for spec in (*self.inputs, *self.outputs) for name in spec.free}
        if free != set(self.dimensions):
            raise ValueError(f"shapes have the dimensions {sorted(free)}, described are {sorted(self.dimensions)}")
        if self.preprocessing:
            self.preprocessing.check_input(self.inputs)
        if isinstance(self.postprocessing, DetectionPostprocessing):
            names = {spec.name for spec in self.outputs}
            if absent := [name for name in self.postprocessing.outputs if name not in names]:
                raise ValueError(f"postprocessing reads {', '.join(absent)}; outputs are {', '.join(sorted(names))}")
        return self

    @property
    def smallest(self) -> dict[str, int]:
        """Smallest size of each free dimension other than the batch."""
        return {name: dimension.smallest for name, dimension in self.dimensions.items()}

    @property
    def largest(self) -> dict[str, int]:
        """Largest size of each free dimension other than the batch."""
        return {name: dimension.largest for name, dimension in self.dimensions.items()}

    def graph_for(self, target: Target) -> str:
        """Name of the graph that serves a target.

        Raises:
            BundleInvalid: None does.
        """
        for name, graph in self.graphs.items():
            if target in graph.targets:
                return name
        served = sorted({served for graph in self.graphs.values() for served in graph.targets})
        raise BundleInvalid(
            f"{self.name} has no graph for target {target!r}; it serves {', '.join(served)}",
            remedy=f"build it again with --target {target}, or serve another target",
        )

    def to_bytes(self) -> bytes:
        """Canonical JSON: fixed order of keys, one trailing newline."""
        return (json.dumps(self.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode()

    @classmethod
    def from_bytes(cls, data: bytes, origin: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleInvalid: It is no JSON, of another schema version, or breaks the schema; every fault is named.
        """
        try:
            version = json.loads(data).get("schema_version")
        except (ValueError, AttributeError, RecursionError) as error:
            raise BundleInvalid(f"{origin} is not a manifest: {error}", remedy="build the bundle again") from None
        if version != SCHEMA_VERSION:
            raise BundleInvalid(
                f"{origin} has schema version {version!r}, this monocoque reads {SCHEMA_VERSION}",
                remedy="build the bundle again with this version, or install the version that built it",
            )
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(str(part) for part in fault['loc']) or 'manifest'}: {fault['msg']}"
                for fault in error.errors()
            )
            raise BundleInvalid(f"{origin}: {faults}", remedy="build the bundle again") from None
