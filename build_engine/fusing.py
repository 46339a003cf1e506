"""The build's fusing step: fuse, verify, remove shortcuts on request, fold the mean where it pays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from build_engine.camera_input import subtract_in_rows
from build_engine.fuse import FuseOptions, FuseReport, fuse_verified
from build_engine.fuse.verify import Verification
from build_engine.graph import Tensors
from build_engine.mean import MeanFolding, fold_mean_where_faster
from build_engine.options import BuildOptions
from build_engine.progress import Progress, counter
from build_engine.quantize.core import with_node_names
from build_engine.shortcuts import Shortcuts, without_shortcuts
from build_engine.verify import check_tolerance, verifier


@dataclass(frozen=True)
class Fused:
    """A fused network.

    Attributes:
        model: Every node named, shapes inferred.
        report: What the fuser did.
        verification: How far the model is from the unfused one.
        shortcuts: What became of the shortcuts; None where they were to be left.
        mean: What became of the camera's mean; None without a camera, or without a mean.
    """

    model: onnx.ModelProto
    report: FuseReport
    verification: Verification
    shortcuts: Shortcuts | None = None
    mean: MeanFolding | None = None


def fuse_network(
    trained: onnx.ModelProto, cases: Sequence[Tensors], options: BuildOptions, progress: Progress
) -> Fused:
    """Fuse a network for a build.

    Args:
        trained: The graph as trained, every node named.
        cases: Inputs to verify on, real frames first; the first one is measured on.
        options: What was asked for.
        progress: Shown bars.

    Raises:
        BuildError: The graph cannot be fused, or the outcome misses its bound.
    """
    cost_model = FuseOptions.for_target(options.targets[0])
    with counter(progress, "Evaluating the unfused graph", len(cases)) as tell:
        reference = verifier(trained, cases, tell)
    with progress.step("Fusing and verifying"):
        fused = fuse_verified(trained, reference, cost_model)
    model, shortcuts, mean = _named(fused.model), None, None
    if options.remove_residuals != "off":
        model, shortcuts = without_shortcuts(
            model,
            options.remove_residuals,
            reference,
            options=cost_model,
            seconds=options.latency_seconds,
            threads=options.threads,
            progress=progress,
        )
        model = _named(model)
    served = subtract_in_rows(model)
    if options.camera is not None and any(options.camera.mean):
        served, mean = fold_mean_where_faster(
            served,
            model,
            reference,
            cases[0],
            targets=options.targets,
            seconds=options.latency_seconds,
            threads=options.threads,
            progress=progress,
        )
    verification = reference.check(served)
    check_tolerance(verification, options.tolerance)
    return Fused(served, fused.report, verification, shortcuts, mean)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    return with_node_names(onnx.shape_inference.infer_shapes(model, data_prop=True))
