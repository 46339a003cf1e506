"""Whether what was built computes what was trained: the fused graph at build time, the bundle wherever it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from build_engine.errors import BuildError
from build_engine.fuse.verify import Verification, Verifier
from build_engine.graph import Tensors, serialize
from build_engine.quantize import emulated
from engine.bundle import Bundle
from engine.cpu import cpu_name
from engine.errors import RuntimeUnavailable
from engine.manifest import Target
from engine.onnx_runtime import OnnxRuntime
from engine.opening import open_runtime
from engine.reference import check_reference
from engine.runtime import RuntimeDescription
from engine.slots import RegionTable


def verifier(
    trained: onnx.ModelProto, inputs: Sequence[Tensors], progress: Callable[[str, int, int], None] | None = None
) -> Verifier:
    """What a graph computes on some inputs, to compare fused versions of it with.

    Args:
        trained: The graph before fusion.
        inputs: Real frames where there are any, and random ones.
        progress: Told about every input.
    """
    with _gathers_from_any_size():
        return Verifier(trained, inputs, progress=progress)


def check_tolerance(verification: Verification, tolerance: float | None) -> None:
    """Hold a comparison that passed the fuser's own bound to a user's.

    Args:
        verification: The comparison.
        tolerance: Largest error relative to an output's largest value; None allows what the fuser does.

    Raises:
        BuildError: An output is off by more.
    """
    worst = max(verification.outputs, key=lambda output: output.fused)
    if tolerance is not None and worst.fused > tolerance:
        raise BuildError(
            f"output {worst.name!r} of the fused graph is off by {worst.fused:.2e} of its largest value, allowed is "
            f"{tolerance:.2e}; the unfused graph's own rounding is {worst.unfused:.2e}",
            remedy="allow more with --tolerance, or leave it out to bound the error by that rounding",
        )


@contextmanager
def _gathers_from_any_size() -> Iterator[None]:
    """Lift a limit of onnx.reference: its GatherElements is np.choose, which fails on axes of more than 64."""

    def gather(data: npt.NDArray[Any], axis: int, indices: npt.NDArray[Any]) -> npt.NDArray[Any]:
        inner = tuple(
            slice(None) if index == axis % data.ndim else slice(size) for index, size in enumerate(indices.shape)
        )
        taken: npt.NDArray[Any] = np.take_along_axis(data[inner], indices, axis)
        return taken

    with mock.patch("onnx.reference.ops.op_gather_elements.gather_numpy", gather):
        yield


def check_graphs(bundle: Bundle) -> None:
    """Run the reference cases on every graph of a bundle, on the CPU, as a server does before it serves.

    TensorRT's graphs are emulated: what is checked is the graph, not the plan.

    Raises:
        BuildError: A graph disagrees with the float graph by more than a server accepts.
    """
    manifest = bundle.manifest
    for name, graph in manifest.graphs.items():
        regions = RegionTable()
        description = RuntimeDescription(
            backend="onnxruntime",
            backend_version=onnxruntime.__version__,
            target="cpu",
            graph=name,
            precision=graph.precision,
            inputs=manifest.inputs,
            outputs=manifest.outputs,
            max_batch=manifest.max_batch,
            device=cpu_name(),
            smallest=manifest.smallest,
            largest=manifest.largest,
        )
        data = bundle.read(graph.path)
        if graph.precision in ("bf16", "fp8"):
            data = serialize(emulated(onnx.load_from_string(data)))
        runtime = OnnxRuntime(data, description, regions)
        try:
            outcome = check_reference(bundle, runtime, regions)
        finally:
            runtime.close()
            regions.close()
        if not outcome.passed:
            raise BuildError(
                f"graph {name}: {outcome.message}; a server would refuse it",
                remedy="give a budget, such as --max-accuracy-drop 0.5, which keeps the layers that cost most out of "
                "INT8, or more, and more varied, frames to --calibration-data; or build with --precision fp16 or fp32; "
                "where outputs are a list of detections, whose order may change, say so with --postprocess",
            )


@dataclass(frozen=True)
class TargetOutcome:
    """What became of a bundle's reference cases on one target.

    Attributes:
        target: Where they were to run.
        passed: Whether the engine agrees with the float graph; None where it cannot run here.
        message: One line for a person.
    """

    target: Target
    passed: bool | None
    message: str


def check_bundle(bundle: Bundle, only: Target | None = None) -> tuple[TargetOutcome, ...]:
    """Run a bundle's reference cases on every target that can be had here.

    Args:
        bundle: An opened bundle, whose digests are therefore checked.
        only: One target; it must be available then.

    Raises:
        EngineError: `only` is not available or not served, or an engine fails.
    """
    served = dict.fromkeys(target for graph in bundle.manifest.graphs.values() for target in graph.targets)
    outcomes = []
    for target in (only,) if only else served:
        regions = RegionTable()
        try:
            runtime = open_runtime(bundle, target, regions)
        except RuntimeUnavailable as error:
            if only:
                raise
            outcomes.append(TargetOutcome(target, None, error.message))
            continue
        try:
            result = check_reference(bundle, runtime, regions)
            outcomes.append(TargetOutcome(target, result.passed, result.message))
        finally:
            runtime.close()
            regions.close()
    return tuple(outcomes)
