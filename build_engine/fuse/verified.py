"""Fusion that is checked region by region: what misses the bound stays as it was, the rest stays fused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from build_engine.fuse.algebra import Reason
from build_engine.fuse.fusion import FuseResult, fuse
from build_engine.fuse.options import FuseOptions
from build_engine.fuse.report import FusedRegion, FuseReport, KeptRegion
from build_engine.fuse.verify import FusionMismatch, Verification, Verifier


@dataclass(frozen=True)
class VerifiedFusion:
    """A fused model that was found to compute what the unfused one does.

    Args:
        model: The fused model.
        report: What was fused; regions that missed the bound are in ``kept``, with the reason ``verification``.
        verification: The errors measured.
    """

    model: onnx.ModelProto
    report: FuseReport
    verification: Verification


def fuse_verified(
    model: onnx.ModelProto,
    verifier: Verifier,
    options: FuseOptions | None = None,
    *,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> VerifiedFusion:
    """Fuses a model; each region that puts an output beyond its bound is left as it was and named.

    The regions are looked for by bisection: the shortest run of regions, from the inputs on, that misses the bound
    ends with one that has to go. So a model without such regions costs one comparison, one with ``k`` of them about
    ``k log2(n)``.

    Args:
        model: Any ONNX model in inference form; it is not changed.
        verifier: The model's outputs on the inputs to compare on.
        options: The cost model. None means default.
        finish: What else becomes of the fused model before it is compared. None means nothing.
        progress: Called with a step's name, the work done and the work in all.

    Raises:
        BuildError: As `fuse` raises it.
        FusionMismatch: The outputs differ with no region fused: it is not fusion that changes them.
    """
    options = options or FuseOptions()
    left: list[KeptRegion] = []
    while True:
        result = fuse(model, options, progress=progress)
        outcome = _outcome(verifier, result, finish, progress)
        if isinstance(outcome, Verification):
            report = dataclasses.replace(result.report, kept=(*left, *result.report.kept))
            finished = finish(result.model) if finish else result.model
            return VerifiedFusion(finished, report, outcome)
        region, mismatch = _culprit(model, verifier, options, finish, result.report.regions, outcome)
        left.append(_named(region, mismatch))
        options = without([region], options)


def without(regions: Sequence[FusedRegion], options: FuseOptions) -> FuseOptions:
    """Options under which the nodes of these regions stay as they are."""
    return dataclasses.replace(options, excluded=options.excluded.union(*(region.nodes for region in regions)))


def _culprit(
    model: onnx.ModelProto,
    verifier: Verifier,
    options: FuseOptions,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None,
    regions: Sequence[FusedRegion],
    mismatch: FusionMismatch,
) -> tuple[FusedRegion, FusionMismatch]:
    """The last region of the shortest run that misses the bound, and how it misses it."""
    passing, failing = -1, len(regions)  # lengths of runs; that of length 0 is tried as well
    while failing - passing > 1:
        length = (passing + failing) // 2
        outcome = _outcome(verifier, fuse(model, without(regions[length:], options)), finish, None)
        if isinstance(outcome, Verification):
            passing = length
        else:
            failing, mismatch = length, outcome
    if failing == 0:
        raise mismatch
    return regions[failing - 1], mismatch


def _outcome(
    verifier: Verifier,
    result: FuseResult[onnx.ModelProto],
    finish: Callable[[onnx.ModelProto], onnx.ModelProto] | None,
    progress: Callable[[str, int, int], None] | None,
) -> Verification | FusionMismatch:
    try:
        return verifier.check(finish(result.model) if finish else result.model, progress=progress)
    except FusionMismatch as mismatch:
        return mismatch


def _named(region: FusedRegion, mismatch: FusionMismatch) -> KeptRegion:
    nodes = ", ".join(region.nodes)
    sentence = f"left as it was, with all of {nodes}: as one, {mismatch.message}"
    return KeptRegion(region.nodes[-1], region.modules, Reason.VERIFICATION.value, sentence)
