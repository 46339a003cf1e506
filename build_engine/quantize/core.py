"""Which part of a network bears lower precision, and which must not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx

from build_engine.errors import BuildError
from build_engine.fuse import FuseReport
from build_engine.graph import constants, consumers

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose time is multiplications by constant weights."""
DECODING = frozenset(
    {"ArgMax", "ArgMin", "Exp", "GatherElements", "GatherND", "NonMaxSuppression", "NonZero", "ScatterND", "TopK"}
)
"""Operators that turn features into answers."""
DECODED_SHARE = 0.1
"""A decoder leads to few weighted layers, such as box arithmetic that the fuser wrote as a convolution. An operator
above that leads to more of the network than this share decodes nothing."""
IMAGE_CHANNELS = 4


@dataclass(frozen=True)
class Core:
    """The core of a network: from its first weighted layer to its last ones.

    What comes before (a camera's bytes, minus the mean) and what comes after (sigmoid, peak search, box arithmetic)
    stays in FP32: it costs next to nothing, and an error there is an error of the answer.

    Attributes:
        weighted: Names of the weighted nodes, the last ones apart.
        between: Names of the nodes between weighted nodes: activations, additions, pooling, resizing.
        first: Those of `weighted` that read an image.
        last: Names of the weighted nodes that no other follows: the heads. INT8 leaves them in float, since their
            output is read by the decoding; FP16 does not.
    """

    weighted: tuple[str, ...]
    between: tuple[str, ...]
    first: tuple[str, ...]
    last: tuple[str, ...]


def lower_precision_core(model: onnx.ModelProto, arithmetic: Collection[str] = ()) -> Core:
    """Find the core.

    Args:
        model: A fused graph, every node with a name of its own (see `with_node_names`).
        arithmetic: Nodes that the fuser wrote as convolutions though none was there (see `fused_arithmetic`). At the
            end of a network they decode.

    Raises:
        BuildError: Nothing in the network has weights.
    """
    weights = constants(model)
    nodes = list(model.graph.node)
    weighted = {
        node.name for node in nodes if node.op_type in WEIGHTED and any(name in weights for name in node.input[1:2])
    }
    if not weighted:
        raise BuildError(
            "the network has no convolution or matrix product with constant weights",
            remedy="build it with --precision fp32",
        )
    decoded = _decoded(model, weighted)
    weighted -= decoded
    while peeled := (weighted & set(arithmetic)) - _upstream(model, weighted):
        weighted -= peeled
    follows = downstream(model, weighted)
    leads = _upstream(model, weighted) - decoded
    last = weighted - leads
    reads_image = {
        node.name
        for node in nodes
        if node.name in weighted - follows and len(weights[node.input[1]].shape) == 4
        if weights[node.input[1]].shape[1] <= IMAGE_CHANNELS
    }
    return Core(
        weighted=tuple(node.name for node in nodes if node.name in weighted & leads),
        between=tuple(node.name for node in nodes if node.name in (follows & leads) - weighted),
        first=tuple(node.name for node in nodes if node.name in reads_image & leads),
        last=tuple(node.name for node in nodes if node.name in last),
    )


def fused_arithmetic(report: FuseReport) -> frozenset[str]:
    """Names of the nodes that the fuser made of additions, scales and slices alone, such as `8 * (grid + offset)`."""
    return frozenset(region.name for region in report.regions if not WEIGHTED & set(region.rules))


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


def downstream(model: onnx.ModelProto, sources: Collection[str]) -> set[str]:
    """Names of the nodes that depend on one of these nodes."""
    reached: set[str] = set()
    tensors: set[str] = set()
    for node in model.graph.node:  # in topological order
        depends = any(name in tensors for name in node.input)
        if depends:
            reached.add(node.name)
        if depends or node.name in sources:
            tensors.update(node.output)
    return reached


def _upstream(model: onnx.ModelProto, sinks: Collection[str]) -> set[str]:
    """Names of the nodes on which one of these nodes depends."""
    readers = consumers(model)
    reached: set[str] = set()
    for node in reversed(model.graph.node):
        ahead = (reader.name for output in node.output for reader in readers.get(output, []))
        if any(name in sinks or name in reached for name in ahead):
            reached.add(node.name)
    return reached


def _decoded(model: onnx.ModelProto, weighted: set[str]) -> set[str]:
    """Names of the nodes from the decoders on."""
    readers = consumers(model)
    found: set[str] = set()
    for node in model.graph.node:
        # Softmax before a convolution is the expectation over a box's distribution (DFL, arXiv 2006.04388);
        # before a matrix product it is attention.
        expectation = node.op_type == "Softmax" and any(r.op_type == "Conv" for r in readers.get(node.output[0], []))
        if node.op_type not in DECODING and not expectation:
            continue
        after = downstream(model, {node.name})
        if len(after & weighted) <= DECODED_SHARE * len(weighted) + 1:
            found |= {node.name} | after
    return found
