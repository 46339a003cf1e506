from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from build_engine.fuse.cost import Cost, LiveStep


@dataclass(frozen=True)
class FusedRegion:
    """A part of the graph that became one form.

    Args:
        name: The new node's name, or the output's where nothing had to be computed.
        nodes: Names of the ONNX nodes it absorbed, in the graph's order.
        modules: PyTorch module paths of these nodes, where the exporter kept them.
        operators: Operator of each of `nodes`.
        rules: The operators whose rules were applied.
        output: The tensor that the region computes.
        plan: How it is computed now.
        before: The absorbed nodes' cost.
        after: The new nodes' cost.
    """

    name: str
    nodes: tuple[str, ...]
    modules: tuple[str, ...]
    operators: tuple[str, ...]
    rules: tuple[str, ...]
    output: str
    plan: str
    before: Cost
    after: Cost


@dataclass(frozen=True)
class KeptRegion:
    """An operation that was left as it is next to one it might have been merged with.

    Args:
        name: The node.
        modules: Its PyTorch module path, where the exporter kept it.
        reason: ``nonlinearity``, ``shared tensor``, ``border``, ``cost``, ``broadcast``, ``geometry``,
            ``unknown shape``, ``operator``, or ``verification`` for a region that fused missed its bound.
        sentence: The same for a person, with the values seen.
    """

    name: str
    modules: tuple[str, ...]
    reason: str
    sentence: str


@dataclass(frozen=True)
class FuseReport:
    """What the fuser did to a model and what it left alone.

    Args:
        regions: What was fused.
        kept: What was not, and why.
        before: The whole model as it came.
        after: The whole model as it is now.
        live_before: Memory of activations over time, step by step, as it came.
        live_after: The same as it is now.
    """

    regions: tuple[FusedRegion, ...]
    kept: tuple[KeptRegion, ...]
    before: Cost
    after: Cost
    live_before: tuple[LiveStep, ...] = ()
    live_after: tuple[LiveStep, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def __str__(self) -> str:
        """One line per figure, for a terminal."""
        rows = [
            f"{name.replace('_', ' '):17} {getattr(self.before, name):>15,} → {getattr(self.after, name):>15,}"
            for name in asdict(self.before)
        ]
        return "\n".join([f"{len(self.regions)} regions fused, {len(self.kept)} operations kept", *rows])
