"""Whether a fused model computes what the unfused one does, measured against float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

from build_engine.errors import BuildError
from build_engine.fuse.cost import count
from build_engine.fuse.reference import float64_evaluator

Tensor: TypeAlias = npt.NDArray[Any]

# Fused RepVGG networks measured 1.25 to 1.56 times the error of the unfused float32 graph.
ERROR_RATIO = 2.5
ERROR_FLOOR = 1e-6
# Above this the float64 reference, about a second per GMAC on one core, is replaced by the float32 graph.
REFERENCE_GMACS = 4.0
DIRECT_TOLERANCE = 1e-4


class FusionMismatch(BuildError):
    """A fused model's output differs by more than rounding explains."""


@dataclass(frozen=True)
class OutputError:
    """How far one output was off, on the worst input.

    Errors are the largest absolute difference divided by the output's scale, its largest absolute value in
    the reference; a scale below 1e-12 counts as 1.

    Args:
        name: The output.
        fused: The fused graph's error.
        unfused: The unfused float32 graph's own error; 0 where it is itself the reference.
        bound: What ``fused`` may be.
        disagreements: Elements of an integer output that differ; each was found to be a tie.
    """

    name: str
    fused: float
    unfused: float
    bound: float
    disagreements: int = 0


@dataclass(frozen=True)
class Verification:
    """The outcome of a comparison that passed.

    Args:
        reference: ``float64``, or ``float32`` where float64 takes too long.
        outputs: One entry per output, the worst over all inputs.
        inputs: Number of inputs compared.
    """

    reference: str
    outputs: tuple[OutputError, ...]
    inputs: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


class Verifier:
    """A model's outputs on some inputs, in float64 and in float32, to compare fused versions of it with.

    Args:
        before: The unfused model.
        inputs: Feeds by input name; small odd sizes and the real size are both worth having.
        progress: Called with a step's name, the inputs done and the inputs in all.

    Raises:
        BuildError: No inputs were given.
    """

    def __init__(
        self,
        before: onnx.ModelProto,
        inputs: Sequence[Mapping[str, Tensor]],
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        if not inputs:
            raise BuildError(
                "nothing to verify a fused model on: no inputs were given", remedy="pass at least one feed"
            )
        self._inputs = inputs
        self._names = [output.name for output in before.graph.output]
        session, exact = _session(before), _reference(before, inputs[0])
        self._plain: list[list[Tensor]] = []
        self._truth: list[list[Tensor]] = []
        for index, feed in enumerate(inputs):
            if progress is not None:
                progress("evaluating the unfused graph", index, len(inputs))
            self._plain.append(session.run(self._names, dict(feed)))
            truth = None if exact is None else _evaluate(exact, feed, self._names)
            exact = exact if truth is not None else None
            self._truth.append(truth or [])
        self._direct = exact is None
        if self._direct:
            self._truth = self._plain

    def check(self, after: onnx.ModelProto, *, progress: Callable[[str, int, int], None] | None = None) -> Verification:
        """Compares a fused model, see `verify_fusion`.

        Raises:
            FusionMismatch: An output is off by more than its bound.
        """
        session = _session(after)
        fused = []
        for index, feed in enumerate(self._inputs):
            if progress is not None:
                progress("verifying", index, len(self._inputs))
            fused.append(session.run(self._names, dict(feed)))
        if progress is not None:
            progress("verifying", len(self._inputs), len(self._inputs))
        outputs = _compare(self._names, self._truth, self._plain, fused, self._direct)
        return Verification("float32" if self._direct else "float64", tuple(outputs), len(self._inputs))


def verify_fusion(
    before: onnx.ModelProto,
    after: onnx.ModelProto,
    inputs: Sequence[Mapping[str, Tensor]],
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> Verification:
    """Compares a fused model with the model it was made from.

    Floating-point outputs: ``fused <= max(2.5 * unfused, 1e-6)``, both errors against a float64 evaluation of
    the *unfused* graph, relative to the output's scale and the largest over *all* inputs: the largest error on one
    input is a matter of chance, and so would be the ratio of two of them. Where one inference exceeds 4 GMAC, the
    float32 graph is the reference and the bound is 1e-4.

    Integer and boolean outputs (classes, indices of a TopK): equal to the reference's, or excused by a tie.
    An element that differs is a tie if the unfused float32 graph disagrees with float64 there too, or if every
    floating-point output of the same shape holds the same values within its bound at that element: the choice
    was between equals.

    Args:
        before: The unfused model.
        after: The fused model.
        inputs: Feeds by input name; small odd sizes and the real size are both worth having.
        progress: Called with a step's name, the inputs done and the inputs in all.

    Returns:
        The errors found.

    Raises:
        FusionMismatch: An output is off by more than its bound.
        BuildError: No inputs were given.
    """
    return Verifier(before, inputs, progress=progress).check(after, progress=progress)


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The graph as it is, on one thread's arithmetic: nothing that ONNX Runtime would merge by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _reference(model: onnx.ModelProto, feed: Mapping[str, Tensor]) -> ReferenceEvaluator | None:
    """A float64 evaluator, or None where it would take too long or lacks an operator."""
    if _with_sizes(model, feed) > REFERENCE_GMACS * 1e9:
        return None
    try:
        return float64_evaluator(model)
    except (NotImplementedError, RuntimeError, TypeError):
        return None


def _with_sizes(model: onnx.ModelProto, feed: Mapping[str, Tensor]) -> int:
    """Multiply-accumulates at the sizes of a feed."""
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    for value in sized.graph.input:
        if value.name in feed:
            for dim, size in zip(value.type.tensor_type.shape.dim, feed[value.name].shape, strict=False):
                dim.dim_value = size
    del sized.graph.value_info[:]
    return count(sized).macs


def _evaluate(exact: ReferenceEvaluator, feed: Mapping[str, Tensor], names: list[str]) -> list[Tensor] | None:
    """Outputs in float64, or None where the reference implementation cannot do what a node asks for."""
    double = {name: x.astype(np.float64) if x.dtype.kind == "f" else x for name, x in feed.items()}
    try:
        with np.errstate(all="ignore"):  # what is not finite is compared, and needs no line on the terminal
            return [np.asarray(result) for result in exact.run(names, double)]
    except Exception:  # it raises whatever numpy raises, as for a grouped ConvTranspose
        return None


def _compare(
    names: list[str],
    truth: list[list[Tensor]],
    plain: list[list[Tensor]],
    fused: list[list[Tensor]],
    direct: bool,
) -> list[OutputError]:
    """One entry per output; the arguments hold one list of outputs per input."""
    errors: dict[str, OutputError] = {}
    for at, name in enumerate(names):
        for true, output in zip(truth, fused, strict=True):
            if output[at].shape != true[at].shape:
                raise FusionMismatch(
                    f"output '{name}' has shape {output[at].shape} after fusing and {true[at].shape} before",
                    remedy="build with fusion off, and report this with the model",
                )
        if truth[0][at].dtype.kind != "f":
            continue
        own = max(_error(true[at], one[at]) for true, one in zip(truth, plain, strict=True))
        new = max(_error(true[at], one[at]) for true, one in zip(truth, fused, strict=True))
        bound = DIRECT_TOLERANCE if direct else max(ERROR_RATIO * own, ERROR_FLOOR)
        if not new <= bound:
            raise FusionMismatch(
                f"output '{name}' is off by {new:.3g} of its scale after fusing; before it was {own:.3g}, and "
                f"the bound is {bound:.3g}",
                remedy="build with fusion off, and report this with the model",
            )
        errors[name] = OutputError(name, new, own, bound)
    for at, name in enumerate(names):
        if name in errors:
            continue
        differing = unexplained = elements = 0
        for true, unfused, output in zip(truth, plain, fused, strict=True):
            other = np.asarray(output[at] != true[at])
            tied = np.asarray(unfused[at] != true[at])
            tied |= _between_equals(true[at].shape, true, output, list(errors.values()), names)
            differing += int(np.count_nonzero(other))
            unexplained += int(np.count_nonzero(other & ~tied))
            elements += other.size
        if unexplained:
            raise FusionMismatch(
                f"output '{name}' differs in {unexplained} of {elements} elements after fusing, and not by a tie",
                remedy="build with fusion off, and report this with the model",
            )
        errors[name] = OutputError(name, 0.0, 0.0, 1.0, differing)
    return [errors[name] for name in names]


def _between_equals(
    shape: tuple[int, ...], truth: list[Tensor], fused: list[Tensor], errors: list[OutputError], names: list[str]
) -> npt.NDArray[np.bool_]:
    """Elements where all floating-point outputs of this shape agree, so that swapped indices are a tie."""
    bounds = {error.name: error.bound for error in errors}
    agreeing = [
        np.abs(a - b) <= 2 * bounds[name] * _scale(a)
        for name, a, b in zip(names, truth, fused, strict=True)
        if name in bounds and a.shape == shape
    ]
    if not agreeing:
        return np.zeros(shape, dtype=np.bool_)
    return np.asarray(np.all(agreeing, axis=0), dtype=np.bool_)


def _scale(true: Tensor) -> float:
    largest = float(np.max(np.abs(true[np.isfinite(true)]), initial=0.0))
    return largest if largest > 1e-12 else 1.0


def _error(true: Tensor, output: Tensor) -> float:
    """Largest absolute difference over the scale; infinite where finiteness differs."""
    if true.size == 0:
        return 0.0
    finite = np.isfinite(true)
    if not np.array_equal(finite, np.isfinite(output)):
        return math.inf
    gap = np.abs(output.astype(np.float64) - true.astype(np.float64), where=finite, out=np.zeros(true.shape))
    return float(gap.max()) / _scale(true)
