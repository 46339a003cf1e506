"""TensorRT's plans, really compiled, with what the compiler says about memory and kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from build_engine.compile.repeatable import build_repeatably
from build_engine.progress import Progress
from engine.errors import RuntimeUnavailable
from engine.manifest import Precision, Target
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan


@dataclass(frozen=True)
class Compiled:
    """One graph, compiled for one target.

    Attributes:
        target: For which target.
        graph: Which graph: a bundle's, or `unfused` for comparison.
        plan: The outcome.
    """

    target: Target
    graph: str
    plan: CompiledPlan


RTX_CAPABILITIES: Mapping[str, tuple[str, ...]] = {
    "bf16": ("8.0", "8.6", "8.9", "12.0", "12.1"),
    "fp8": ("8.9", "12.0", "12.1"),
}
"""GPUs that have a precision, of those that TensorRT-RTX compiles for; asked for another, it refuses the type."""


def compile_graph(
    name: str, graph: bytes, target: Target, options: PlanOptions, progress: Progress, precision: Precision = "fp32"
) -> Compiled | None:
    """Compile one graph; for TensorRT-RTX, so that the same graph gives the same bytes.

    Args:
        name: The graph's.
        graph: Its bytes.
        target: What to compile for.
        options: How; of GPUs, those are compiled for that have the precision.
        progress: Told about it.
        precision: Of the graph.

    Returns:
        The plan, or None where it has to be compiled on the device that will run it; a note then says so.

    Raises:
        BuildFailed: TensorRT refuses the network.
        RuntimeUnavailable: TensorRT-RTX, which could compile here, is not installed.
    """
    try:
        with progress.step(f"Compiling {name} for {target}") as _:
            if target != "rtx":
                return Compiled(target, name, build_plan(graph, target, options))
            capabilities = RTX_CAPABILITIES.get(precision, ())
            plan, pinned = build_repeatably(graph, replace(options, compute_capabilities=capabilities))
        if not pinned:
            progress.note(
                f"{target}: this system lets no process choose its addresses in memory, on which TensorRT-RTX's bytes "
                f"depend: the next build of {name} may differ from this one (limits on address space do so: ulimit -v)"
            )
        return Compiled(target, name, plan)
    except RuntimeUnavailable as error:
        if target == "rtx":
            raise
        progress.note(
            f"{target}: compiled on the device at its first start, from the graph in the bundle ({error.message})"
        )
        return None
