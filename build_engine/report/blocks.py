"""Fused regions that look alike, drawn once: how a block was, node by node, and what it is now."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from build_engine.fuse import FusedRegion
from build_engine.graph import constants
from build_engine.outcome import Built
from build_engine.report.layers import common_module, kernel

LARGEST_DRAWN = 40
"""Nodes of the largest block that is drawn; a person cannot follow more."""

_LABELS = {"BatchNormalization": "BN", "Add": "+", "Sub": "−", "Mul": "× const", "Concat": "concat", "Identity": "id"}


@dataclass(frozen=True)
class Node:
    """One node of a drawing.

    Attributes:
        label: What it says.
        column: Place along the flow: one more than the last of what it reads.
        sources: Indices of the nodes it reads; -1 is the block's input.
    """

    label: str
    column: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Block:
    """Regions of the same structure.

    Attributes:
        before: The nodes as trained, in order.
        after: The nodes that compute it now.
        regions: PyTorch modules, or else names, of the regions that have this structure.
    """

    before: tuple[Node, ...]
    after: tuple[str, ...]
    regions: tuple[str, ...]


def blocks(built: Built) -> tuple[Block, ...]:
    """The kinds of regions that were merged, the most frequent first. What only changed its name is left out."""
    trained = {node.name: node for node in built.unfused.graph.node}
    fused = {node.name: node for node in built.float_graph.model.graph.node}
    weights = constants(built.unfused) | constants(built.float_graph.model)
    kinds: dict[tuple[tuple[Node, ...], tuple[str, ...]], list[str]] = {}
    for region in built.fusion.regions:
        if region.before.nodes < 2:
            continue
        known = [trained[name] for name in region.nodes if name in trained]
        if not 1 < len(known) <= LARGEST_DRAWN:
            continue
        shapes = {name: array.shape for name, array in weights.items()}
        kind = _structure(known, shapes), _plan(region, fused, shapes)
        kinds.setdefault(kind, []).append(common_module(region.modules) or region.name)
    found = [Block(before, after, tuple(names)) for (before, after), names in kinds.items()]
    return tuple(sorted(found, key=lambda block: -len(block.regions)))


def _structure(nodes: list[onnx.NodeProto], shapes: dict[str, tuple[int, ...]]) -> tuple[Node, ...]:
    """Nodes in topological order, each with its place."""
    index_of: dict[str, int] = {}
    drawn: list[Node] = []
    for node in nodes:
        reads = [name for name in node.input if name and name not in shapes]
        sources = tuple(dict.fromkeys(index_of.get(name, -1) for name in reads))
        column = 1 + max((drawn[source].column for source in sources if source >= 0), default=-1)
        index_of.update(dict.fromkeys(node.output, len(drawn)))
        drawn.append(Node(_label(node, shapes), column, sources))
    return tuple(drawn)


def _plan(region: FusedRegion, fused: dict[str, onnx.NodeProto], shapes: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    node = fused.get(region.name)
    if node is not None and region.after.nodes == 1:
        return (_label(node, shapes),)
    return tuple(part for part in region.plan.split(", ") if part != "nothing")


def _label(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> str:
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in shapes:
        shape = kernel(node, shapes[node.input[1]]).replace("x", "×")
        return shape if node.op_type == "Conv" else f"{shape} transposed"
    return _LABELS.get(node.op_type, node.op_type)
