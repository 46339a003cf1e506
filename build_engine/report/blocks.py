"""Fused regions that look alike, drawn once: how a block was, node by node, and what it is now."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from build_engine.fuse import Cost, FusedRegion, FuseReport
from build_engine.report.layers import common_module, kernel

LARGEST_DRAWN = 40
"""Nodes of the largest block that is drawn; a person cannot follow more."""

_LABELS = {"BatchNormalization": "BN", "Add": "+", "Sub": "−", "Mul": "× const", "Concat": "concat", "Identity": "id"}


@dataclass(frozen=True)
class Structure:
    """A graph without its weights.

    Attributes:
        nodes: By name.
        weights: Shape of every constant.
    """

    nodes: dict[str, onnx.NodeProto]
    weights: dict[str, tuple[int, ...]]


def structure(model: onnx.ModelProto | ir.Model) -> Structure:
    """What a drawing needs to know of a model."""
    if isinstance(model, ir.Model):
        weights = {
            name: tuple(value.const_value.shape.numpy())
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        return Structure({node.name: node for node in map(ir.serde.serialize_node, model.graph)}, weights)
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            dims = next((tuple(each.t.dims) for each in node.attribute if each.name == "value"), ())
            weights |= dict.fromkeys(node.output, dims)
    return Structure({node.name: node for node in model.graph.node}, weights)


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
        cost_before: Of all of them together; of the activations, the largest.
        cost_after: Likewise.
    """

    before: tuple[Node, ...]
    after: tuple[str, ...]
    regions: tuple[str, ...]
    cost_before: Cost
    cost_after: Cost


def blocks(report: FuseReport, trained: Structure, fused: Structure) -> tuple[Block, ...]:
    """The kinds of regions that were merged, the most frequent first. What only changed its name is left out."""
    kinds: dict[tuple[tuple[Node, ...], tuple[str, ...]], list[FusedRegion]] = {}
    for region in report.regions:
        if region.before.nodes < 2:
            continue
        known = [trained.nodes[name] for name in region.nodes if name in trained.nodes]
        if not 1 < len(known) <= LARGEST_DRAWN:
            continue
        kinds.setdefault((_structure(known, trained.weights), _plan(region, fused)), []).append(region)
    found = [
        Block(
            before,
            after,
            tuple(common_module(region.modules) or region.name for region in regions),
            _together([region.before for region in regions]),
            _together([region.after for region in regions]),
        )
        for (before, after), regions in kinds.items()
    ]
    return tuple(sorted(found, key=lambda block: -len(block.regions)))


def _together(costs: list[Cost]) -> Cost:
    total = {field.name: sum(getattr(cost, field.name) for cost in costs) for field in dataclasses.fields(Cost)}
    return Cost(**total | {"activation_bytes": max(cost.activation_bytes for cost in costs)})


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


def _plan(region: FusedRegion, fused: Structure) -> tuple[str, ...]:
    node = fused.nodes.get(region.name)
    if node is not None and region.after.nodes == 1:
        return (_label(node, fused.weights),)
    return tuple(part for part in region.plan.split(", ") if part != "nothing")


def _label(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> str:
    if node.op_type in ("Conv", "ConvTranspose") and shapes.get(node.input[1]):
        shape = kernel(node, shapes[node.input[1]]).replace("x", "×")
        return shape if node.op_type == "Conv" else f"{shape} transposed"
    return _LABELS.get(node.op_type, node.op_type)
