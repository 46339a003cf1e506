"""TensorRT's plans, really compiled, with what the compiler says about memory and kernels."""

from __future__ import annotations

from dataclasses import dataclass

from build_engine.progress import Progress
from engine.errors import RuntimeUnavailable
from engine.manifest import Target
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


def compile_graph(name: str, graph: bytes, target: Target, max_batch: int, progress: Progress) -> Compiled | None:
    """Compile one graph.

    Returns:
        The plan, or None where it has to be compiled on the device that will run it; a note then says so.

    Raises:
        BuildFailed: TensorRT refuses the network.
        RuntimeUnavailable: TensorRT-RTX, which could compile here, is not installed.
    """
    try:
        with progress.step(f"Compiling {name} for {target}") as _:
            return Compiled(target, name, build_plan(graph, target, PlanOptions(max_batch=max_batch)))
    except RuntimeUnavailable as error:
        if target == "rtx":
            raise
        progress.note(
            f"{target}: compiled on the device at its first start, from the graph in the bundle ({error.message})"
        )
        return None
