"""Everything a build found out: what the bundle is written from, and its report."""

from __future__ import annotations

from dataclasses import dataclass, field

import onnx

from build_engine.accuracy import Accuracy
from build_engine.compile.cpu import Latency
from build_engine.compile.tensorrt import Compiled
from build_engine.frames import Samples
from build_engine.fuse import FuseReport
from build_engine.fuse.verify import Verification
from build_engine.load import Loaded
from build_engine.load.free import FreeDimensions
from build_engine.lowered import Lowered
from build_engine.mean import MeanFolding
from build_engine.options import BuildOptions
from build_engine.quantize import emulated
from build_engine.shortcuts import Shortcuts
from engine.manifest import DetectionPostprocessing, Precision, Preprocessing, Target
from engine.tensors import TensorSpec

FLOAT = "float"
UNFUSED = "unfused"
"""The graph as trained: measured and compiled for comparison, never bundled."""


@dataclass(frozen=True)
class Graph:
    """One graph of the bundle.

    Attributes:
        name: Its name there.
        precision: Of its arithmetic.
        targets: What it serves, in the order given.
        model: The graph itself.
        data: Its bytes.
        low_precision_nodes: Nodes that compute in that precision, by name.
        kept_float: Nodes that could not, and why.
        half_nodes: Nodes of an INT8 graph that compute in FP16.
    """

    name: str
    precision: Precision
    targets: tuple[Target, ...]
    model: onnx.ModelProto
    data: bytes
    low_precision_nodes: tuple[str, ...] = ()
    kept_float: dict[str, str] = field(default_factory=dict)
    half_nodes: frozenset[str] = frozenset()

    @property
    def executable(self) -> onnx.ModelProto:
        """What ONNX Runtime's CPU kernels compute in its place: BF16 and FP8 are emulated, the rest is itself."""
        return emulated(self.model)

    def precision_of(self, node: str) -> Precision:
        """What a node computes in."""
        if node in self.low_precision_nodes:
            return self.precision
        return "fp16" if node in self.half_nodes else "fp32"


@dataclass(frozen=True)
class Built:
    """Everything a build found out.

    Attributes:
        options: What was asked for.
        name: Name of the bundle.
        loaded: The model as it came.
        unfused: The graph as trained, with the camera's input where there is one.
        inputs: What the engine takes.
        outputs: What the engine gives.
        max_batch: Largest batch.
        free: Other dimensions that are chosen at run time.
        preprocessing: How a frame becomes the input, for camera models.
        postprocessing: How outputs become detections, for detectors.
        samples: Calibration data, where given.
        fusion: What the fuser did.
        verification: How far the fused graph is from the unfused one.
        shortcuts: What became of the shortcuts; None where they were to be left.
        mean: What became of the camera's mean; None without one.
        graphs: What the bundle holds; the first that names a target serves it, the last is the float graph.
        lowered: How precision was lowered; None for FP32.
        accuracy: Per graph, the float graph first.
        compiled: Plans: those of the bundle and those for comparison.
        latency: On this machine's CPU.
        integer_kernels: Kernels that ONNX Runtime runs on integers, by operator.
        notes: What a person was told on the way.
    """

    options: BuildOptions
    name: str
    loaded: Loaded
    unfused: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    free: FreeDimensions
    preprocessing: Preprocessing | None
    postprocessing: DetectionPostprocessing | None
    samples: Samples | None
    fusion: FuseReport
    verification: Verification
    shortcuts: Shortcuts | None
    mean: MeanFolding | None
    graphs: tuple[Graph, ...]
    lowered: Lowered | None
    accuracy: tuple[Accuracy, ...]
    compiled: tuple[Compiled, ...]
    latency: tuple[Latency, ...]
    integer_kernels: dict[str, int]
    notes: tuple[str, ...]

    def served(self, target: Target) -> Graph:
        """The graph that serves a target."""
        return next(graph for graph in self.graphs if target in graph.targets)

    @property
    def float_graph(self) -> Graph:
        """The fused graph in FP32."""
        return next(graph for graph in self.graphs if graph.name == FLOAT)
