"""Whether an engine, where it runs, still computes what the float graph computed when the bundle was built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.allocate import allocate
from engine.bundle import Bundle, ReferenceCase, Tensors
from engine.detection_agreement import DetectionAgreement
from engine.errors import BundleInvalid
from engine.manifest import DetectionPostprocessing
from engine.runtime import Runtime, RuntimeDescription
from engine.slots import RegionTable
from engine.tensors import TensorSpec


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from the float graph. All but the margin are least agreements, 1 being perfect.

    Attributes:
        tensor: Of a floating-point output: 1 less the relative L2 error, `|engine - float| / |float|`.
        integer: Of an integer output: the share of equal elements.
        detections: F1 of the decoded detections, matched by class and IoU >= 0.5.
        distances: 1 less the mean relative difference in distance of matched detections.
        score_margin: A detection whose score is this close to the threshold may be there or not.
    """

    tensor: float
    integer: float
    detections: float
    distances: float
    score_margin: float


TOLERANCES: dict[str, Tolerance] = {
    # Another order of additions: 1e-6 to 1e-4 for networks of camera depth.
    "fp32": Tolerance(tensor=0.999, integer=0.99, detections=0.99, distances=0.99, score_margin=0.02),
    # 11 bits of significand: 5e-4 per operation, which grows with depth.
    "fp16": Tolerance(tensor=0.98, integer=0.98, detections=0.95, distances=0.97, score_margin=0.05),
    # 8 bits of significand: 4e-3 per operation.
    "bf16": Tolerance(tensor=0.90, integer=0.95, detections=0.90, distances=0.95, score_margin=0.08),
    # 8 bits: what post-training quantization keeps of a healthy network. A cosine of 0.97 is an L2 error of 0.25.
    "int8": Tolerance(tensor=0.75, integer=0.90, detections=0.85, distances=0.90, score_margin=0.10),
    # 4 bits of significand, rounded at every layer.
    "fp8": Tolerance(tensor=0.75, integer=0.90, detections=0.85, distances=0.90, score_margin=0.10),
}
"""By the precision of the graph that the engine executes. Coarse on purpose: accuracy is measured at build time, this
catches an engine that computes something else."""


@dataclass(frozen=True)
class ReferenceOutcome:
    """What running the reference cases told.

    Attributes:
        passed: Whether every agreement reaches its tolerance.
        agreement: Worst agreement over all cases, per output (or `detections` and `distances`), 0 to 1.
        message: One line for the log, with the figures and what was expected of them.
    """

    passed: bool
    agreement: dict[str, float]
    message: str


def check_reference(bundle: Bundle, runtime: Runtime, regions: RegionTable) -> ReferenceOutcome:
    """Run the bundle's reference cases through a runtime and compare.

    Outputs that the manifest decodes into detections are compared as detections, since TopK may order equals
    differently and a list has no distance. All others are compared as tensors.

    Args:
        bundle: An opened bundle.
        runtime: An engine that was opened from it.
        regions: The table that the runtime was opened with.

    Returns:
        The outcome. A bundle without cases passes, and the message says that nothing was checked.

    Raises:
        BundleInvalid: A case does not fit the manifest.
        RunFailed: The runtime could not execute a case.
    """
    description = runtime.describe()
    tolerance = TOLERANCES[description.precision]
    postprocessing = bundle.manifest.postprocessing
    decoded = None
    if isinstance(postprocessing, DetectionPostprocessing):
        decoded = DetectionAgreement(postprocessing, tolerance.score_margin)
    agreement: dict[str, float] = {}
    expected: dict[str, float] = {}
    cases = 0
    for case in bundle.reference_cases():
        cases += 1
        outputs = _run(case, runtime, description, regions)
        for spec in description.outputs:
            if decoded is not None and spec.name in decoded.names:
                continue
            wanted = case.outputs[spec.name]
            exact = wanted.dtype.kind in "biu"
            value = (equal_share if exact else l2_agreement)(outputs[spec.name], wanted)
            agreement[spec.name] = min(value, agreement.get(spec.name, 1.0))
            expected[spec.name] = tolerance.integer if exact else tolerance.tensor
        if decoded is not None:
            decoded.add(outputs, case.outputs)
    if decoded is not None and cases:
        agreement["detections"], expected["detections"] = decoded.f1, tolerance.detections
        if decoded.distances is not None:
            agreement["distances"], expected["distances"] = decoded.distances, tolerance.distances
    return _outcome(cases, description.precision, agreement, expected)


def l2_agreement(actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """1 less the relative L2 error, at least 0. Non-finite values must be the same ones in the same places.

    Args:
        actual: What the engine computed, any shape.
        wanted: What the float graph computed. Of another shape, it is another thing: 0.
    """
    if np.shape(actual) != np.shape(wanted):
        return 0.0
    actual = np.asarray(actual, np.float64)
    wanted = np.asarray(wanted, np.float64)
    finite = np.isfinite(actual) & np.isfinite(wanted)
    if not np.array_equal(actual[~finite], wanted[~finite], equal_nan=True):
        return 0.0
    difference = np.linalg.norm(actual[finite] - wanted[finite])
    # Outputs that should be all zero have no scale of their own: the floor is one part in a million.
    scale = max(float(np.linalg.norm(wanted[finite])), 1e-6 * float(np.sqrt(wanted.size)))
    return max(0.0, 1.0 - float(difference) / scale) if wanted.size else 1.0


def equal_share(actual: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> float:
    """Share of elements that are the same; 0 where the shapes differ."""
    if actual.shape != wanted.shape:
        return 0.0
    return float(np.mean(actual == wanted)) if wanted.size else 1.0


def _run(case: ReferenceCase, runtime: Runtime, description: RuntimeDescription, regions: RegionTable) -> Tensors:
    """The runtime's outputs for a case, in batches that it takes."""
    room = {name: description.largest[name] for name in description.told_by_run}
    inputs = tuple(_spec_of(case, spec, case.inputs, {}) for spec in description.inputs)
    outputs = tuple(_spec_of(case, spec, case.outputs, room) for spec in description.outputs)
    batched = [case.inputs[spec.name].shape[0] for spec in inputs if spec.batched]
    count = batched[0] if batched else 1
    if count < 1:
        raise BundleInvalid(f"{case.name} has an empty batch", remedy="build the bundle again")
    step = min(count, description.max_batch)
    parts: dict[str, list[npt.NDArray[Any]]] = {spec.name: [] for spec in outputs}
    with allocate(replace(description, inputs=inputs, outputs=outputs), regions, step) as slots:
        for start in range(0, count, step):
            size = min(step, count - start)
            for spec in inputs:
                array = case.inputs[spec.name]
                slots.view(spec.name, size)[...] = array[start : start + size] if spec.batched else array
            shapes = runtime.run(slots.batch(size)).shapes
            for spec in outputs:
                view = slots.view(spec.name, size)
                shape = shapes.get(spec.name, view.shape)
                parts[spec.name].append(view.reshape(-1)[: math.prod(shape)].reshape(shape).copy())
    return {spec.name: np.concatenate(parts[spec.name]) if spec.batched else parts[spec.name][-1] for spec in outputs}


def _spec_of(case: ReferenceCase, spec: TensorSpec, tensors: Tensors, room: Mapping[str, int]) -> TensorSpec:
    """A tensor's spec with the sizes that the case has, or those of `room`, the batch left free."""
    remedy = "build the bundle again"
    if spec.name not in tensors:
        raise BundleInvalid(f"{case.name} has no tensor {spec.name!r}", remedy=remedy)
    array = tensors[spec.name]
    fits = array.ndim == len(spec.shape) and all(
        isinstance(size, str) or size == given for size, given in zip(spec.shape, array.shape, strict=True)
    )
    if not fits:
        raise BundleInvalid(
            f"{case.name} has {spec.name} of shape {list(array.shape)}, the manifest says {list(spec.shape)}",
            remedy=remedy,
        )
    sizes = [room.get(str(name), size) for name, size in zip(spec.shape, array.shape, strict=True)]
    return TensorSpec(name=spec.name, dtype=spec.dtype, shape=("batch", *sizes[1:]) if spec.batched else tuple(sizes))


def _outcome(cases: int, precision: str, agreement: dict[str, float], expected: dict[str, float]) -> ReferenceOutcome:
    if not cases:
        return ReferenceOutcome(True, {}, "the bundle has no reference case, so nothing was checked")
    failed = {name for name, value in agreement.items() if not value >= expected[name]}
    told = ", ".join(
        f"{name} {value:.4f} ({'less than' if name in failed else 'at least'} {expected[name]})"
        for name, value in sorted(agreement.items(), key=lambda item: item[0] not in failed)
    )
    verdict = "disagrees with" if failed else "agrees with"
    plural = "case" if cases == 1 else "cases"
    message = f"the {precision} engine {verdict} the float graph on {cases} reference {plural}: {told}"
    return ReferenceOutcome(not failed, agreement, message)
