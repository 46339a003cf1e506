"""Why what was not fused was not fused."""

from __future__ import annotations

import onnx_ir as ir

from build_engine.fuse.algebra import Reason
from build_engine.fuse.cost import CONVOLUTIONS, is_constant
from build_engine.fuse.cover import Choice, Cover, leaves
from build_engine.fuse.cuts import Cut, Cuts
from build_engine.fuse.provenance import module_names, node_names
from build_engine.fuse.report import KeptRegion
from build_engine.fuse.rules import RULES

_WORTH_A_LINE = CONVOLUTIONS | {"Add", "AveragePool", "BatchNormalization", "Gemm", "MatMul", "Mul", "Sub"}


def kept_regions(graph: ir.Graph, cuts: Cuts, cover: Cover) -> tuple[KeptRegion, ...]:
    """One line per linear operation of the cover that still reads another operation's result.

    And one per operator of another domain than ONNX's own, which nothing is known about.
    """
    lines = []
    seen: set[Choice] = set()
    for node in graph:
        if node.domain not in ("", "ai.onnx"):
            sentence = f"{node.domain}::{node.op_type} is no operator of ONNX's own: left as it is"
            lines.append(KeptRegion(node_names([node])[0], module_names([node]), Reason.OPERATOR.value, sentence))
            continue
        for value in node.outputs:
            choice = cover.choice[value]
            if choice in seen or not cover.runs(choice):
                continue
            seen.add(choice)
            nodes = choice.nodes if isinstance(choice, Cut) else frozenset({choice})
            if value.dtype is not None and not value.dtype.is_floating_point():
                continue  # arithmetic of shapes and positions
            if any(n.op_type in _WORTH_A_LINE for n in nodes):
                lines.extend(_line(node, choice, nodes, cuts))
    return tuple(lines)


def _line(node: ir.Node, choice: Choice, nodes: frozenset[ir.Node], cuts: Cuts) -> list[KeptRegion]:
    for leaf in leaves(choice):
        producer = leaf.producer()
        if producer is None or is_constant(leaf):
            continue
        reason, sentence = _obstacle(node, nodes, leaf, producer, cuts)
        return [KeptRegion(node_names([node])[0], module_names([node]), reason.value, sentence)]
    return []


def _obstacle(
    node: ir.Node, nodes: frozenset[ir.Node], leaf: ir.Value, producer: ir.Node, cuts: Cuts
) -> tuple[Reason, str]:
    before = node_names([producer])[0]
    if producer.op_type not in RULES or not (cuts.of.get(leaf) or cuts.refusals.get(producer)):
        return Reason.NONLINEARITY, f"reads '{leaf.name}', which {producer.op_type} '{before}' computes"
    own = cuts.refusals.get(producer)
    if own and not cuts.of.get(leaf):
        obstacle = own[0][1]
        return obstacle.reason, f"{producer.op_type} '{before}' has no form: {obstacle.sentence}"
    for absorber in nodes:
        for absorbed, obstacle in cuts.refusals.get(absorber, []):
            if producer in absorbed:
                return obstacle.reason, f"cannot take in {producer.op_type} '{before}': {obstacle.sentence}"
    if sum(use.node.graph is not None for use in leaf.uses()) > 1 or leaf.is_graph_output():
        return (
            Reason.SHARED,
            f"'{leaf.name}' is read elsewhere too, so {producer.op_type} '{before}' has to be computed anyway",
        )
    return Reason.COST, f"{producer.op_type} '{before}' and this cost less apart than as one convolution"
