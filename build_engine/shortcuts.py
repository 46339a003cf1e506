"""Trained shortcuts: removed on request, measured, and kept out only where that is better."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import onnx

from build_engine.compile.interleaved import Ratio, latencies, ratio
from build_engine.compile.rtx_memory import rtx_memory
from build_engine.errors import BuildError
from build_engine.fuse import Cost, FuseOptions, FusionMismatch, Verifier, count
from build_engine.fuse.cost import LiveStep
from build_engine.fuse.residuals import remove_residuals
from build_engine.options import RemoveResiduals
from build_engine.progress import Progress
from engine.errors import EngineError


@dataclass(frozen=True)
class Measured:
    """One form of a network.

    Attributes:
        cost: What it computes and holds, one frame.
        median_ms: One inference on ONNX Runtime; None where nothing was measured.
        rtx_activation_bytes: TensorRT-RTX's own account in FP16, batch 1, less what any network takes; None where
            TensorRT-RTX is not installed or refuses the network.
    """

    cost: Cost
    median_ms: float | None
    rtx_activation_bytes: int | None


@dataclass(frozen=True)
class Shortcuts:
    """What became of a network's shortcuts.

    Attributes:
        mode: What was asked for.
        removable: Names of the additions that can go.
        removed: Whether they went.
        reason: Why, in a sentence.
        with_them: The network with its shortcuts; None where none can go.
        without_them: The network without.
        latency: Time without over time with; None where nothing was measured.
        live_without: Memory of activations over time without them.
    """

    mode: RemoveResiduals
    removable: tuple[str, ...]
    removed: bool
    reason: str
    with_them: Measured | None = None
    without_them: Measured | None = None
    latency: Ratio | None = None
    live_without: tuple[LiveStep, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def without_shortcuts(
    model: onnx.ModelProto,
    mode: RemoveResiduals,
    verifier: Verifier | None,
    *,
    options: FuseOptions,
    seconds: float,
    threads: int,
    progress: Progress,
) -> tuple[onnx.ModelProto, Shortcuts]:
    """Remove the shortcuts of a fused network, or leave them.

    `auto` removes them where the plain network is measured to be faster and takes no more activation memory.

    Args:
        model: The fused graph.
        mode: `on` or `auto`.
        verifier: Has to agree with the outcome; None verifies nothing.
        options: The cost model.
        seconds: Time for measuring each form; 0 measures nothing, and `auto` then leaves the shortcuts.
        threads: Threads of one inference while measuring.
        progress: Shown bars.

    Returns:
        The graph to go on with, and what was found.
    """
    with progress.step("Removing shortcuts"):
        plain = remove_residuals(model, options)
    if not plain.removed:
        return model, Shortcuts(mode, (), False, "the network has no shortcut relu(F(x) + x) that could go")
    try:
        if verifier is not None:
            verifier.check(plain.model)
    except FusionMismatch as mismatch:
        return model, Shortcuts(mode, plain.removed, False, f"verification refuses it: {mismatch.message}")
    forms = {"with": model, "without": plain.model}
    times = latencies(forms, seconds=seconds, threads=threads, progress=progress) if seconds > 0 else {}
    measured = {}
    with progress.step("Compiling both forms", len(forms)) as advance:
        for name, form in forms.items():
            median = float(sorted(times[name])[len(times[name]) // 2]) if times else None
            measured[name] = Measured(count(form, options), median, _rtx_bytes(form))
            advance()
    found = ratio(times["without"], times["with"]) if times else None
    removed, reason = decide(mode, measured["with"], measured["without"], found)
    outcome = Shortcuts(
        mode, plain.removed, removed, reason, measured["with"], measured["without"], found, plain.live_after
    )
    return (plain.model if removed else model), outcome


def _rtx_bytes(model: onnx.ModelProto) -> int | None:
    try:
        account = rtx_memory(model)
    except (EngineError, BuildError):  # it refuses an operator, or there is no convolution
        return None
    return None if account is None else account.own_activation_bytes


def decide(mode: RemoveResiduals, before: Measured, after: Measured, latency: Ratio | None) -> tuple[bool, str]:
    """Whether shortcuts go, and why, with the figures.

    Args:
        mode: `on` or `auto`.
        before: With shortcuts.
        after: Without.
        latency: Time without over time with.
    """
    said = _figures(before, after, latency)
    if mode == "on":
        return True, f"asked for: {said}"
    if latency is None:
        return False, f"nothing was measured, so they stay: {said}"
    if not latency.is_faster:
        return False, f"not measured to be faster without: {said}"
    if _memory(after) > _memory(before):
        return False, f"faster without, but it takes more activation memory: {said}"
    return True, f"measured to be better without: {said}"


def _memory(form: Measured) -> int:
    return form.cost.activation_bytes if form.rtx_activation_bytes is None else form.rtx_activation_bytes


def _figures(before: Measured, after: Measured, latency: Ratio | None) -> str:
    parts = [
        f"{_times(after.cost.macs, before.cost.macs)} the multiply-accumulates",
        f"{_times(after.cost.parameters, before.cost.parameters)} the weights",
        f"{_times(after.cost.activation_bytes, before.cost.activation_bytes)} the live tensors",
    ]
    if before.rtx_activation_bytes and after.rtx_activation_bytes:
        share = _times(after.rtx_activation_bytes, before.rtx_activation_bytes)
        parts.append(f"{share} TensorRT-RTX's activation memory")
    if latency is not None:
        parts.append(f"{latency.median:.2f}x the time on ONNX Runtime ({latency.low:.2f} to {latency.high:.2f})")
    return ", ".join(parts)


def _times(after: float, before: float) -> str:
    return f"{after / before:.2f}x" if before else "–"
