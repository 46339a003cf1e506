"""Which part of a network bears lower precision, and which must not."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from build_engine.errors import BuildError
from build_engine.graph import constants, consumers

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose time is multiplications by constant weights."""


@dataclass(frozen=True)
class Core:
    """The core of a network: from its first weighted layer to its last ones.

    What comes before (a camera's bytes, minus the mean) and what comes after (sigmoid, peak search, box arithmetic)
    stays in FP32: it costs next to nothing, and an error there is an error of the answer.

    Attributes:
        weighted: Names of the weighted nodes, the last ones apart.
        between: Names of the nodes between weighted nodes: activations, additions, pooling, resizing.
        last: Names of the weighted nodes that no other follows: the heads. INT8 leaves them in float, since their
            output is read by the decoding; FP16 does not.
    """

    weighted: tuple[str, ...]
    between: tuple[str, ...]
    last: tuple[str, ...]


def lower_precision_core(model: onnx.ModelProto) -> Core:
    """Find the core.

    Args:
        model: A fused graph, every node with a name of its own (see `with_node_names`).

    Raises:
        BuildError: Nothing in the network has weights.
    """
    weights = constants(model)
    nodes = list(model.graph.node)
    readers = consumers(model)
    weighted = {
        node.name for node in nodes if node.op_type in WEIGHTED and any(name in weights for name in node.input[1:2])
    }
    if not weighted:
        raise BuildError(
            "the network has no convolution or matrix product with constant weights",
            remedy="build it with --precision fp32",
        )
    follows = _downstream(nodes, weighted)
    leads: set[str] = set()
    for node in reversed(nodes):
        ahead = [reader.name for output in node.output for reader in readers.get(output, [])]
        if any(name in weighted or name in leads for name in ahead):
            leads.add(node.name)
    last = weighted - leads
    return Core(
        weighted=tuple(node.name for node in nodes if node.name in weighted & leads),
        between=tuple(node.name for node in nodes if node.name in (follows & leads) - weighted),
        last=tuple(node.name for node in nodes if node.name in last),
    )


def with_node_names(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, every node with a name that no other has."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(named.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}.{index}"
        seen.add(node.name)
    return named


def _downstream(nodes: list[onnx.NodeProto], sources: set[str]) -> set[str]:
    reached: set[str] = set()
    tensors: set[str] = set()
    for node in nodes:  # in topological order
        if node.name in sources or any(name in tensors for name in node.input):
            if any(name in tensors for name in node.input):
                reached.add(node.name)
            tensors.update(node.output)
    return reached
