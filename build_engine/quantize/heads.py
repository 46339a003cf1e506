"""The last layers on integers: 8 bits in, float out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from build_engine.graph import constants
from build_engine.quantize.core import Core
from build_engine.quantize.rewrite import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, rewritten
from build_engine.quantize.tune import WEIGHT_LEVELS, weight_scales
from build_engine.quantize.weights import attributes


def pointwise_heads(model: onnx.ModelProto, core: Core, integer: Collection[str]) -> tuple[str, ...]:
    """Names of the last layers that are 1x1 convolutions of what an integer layer computes.

    Their input has 8 bits already. Their output, which the decoding reads, need not be rounded: an integer matrix
    product can write floats. So all they lose is the rounding of their weights.

    Args:
        model: A float graph.
        core: Its last layers.
        integer: Nodes with 8-bit inputs, by name.
    """
    fixed = constants(model)
    rounded = {name for node in model.graph.node if node.name in integer for name in node.output}
    return tuple(
        node.name
        for node in model.graph.node
        if node.name in core.last and node.op_type == "Conv" and node.input[0] in rounded
        if _is_pointwise(node, fixed.get(node.input[1]))
    )


def _is_pointwise(node: onnx.NodeProto, weight: npt.NDArray[Any] | None) -> bool:
    if weight is None or weight.ndim != 4 or weight.shape[2:] != (1, 1):
        return False
    given = attributes(node)
    plain = given.get("group", 1) == 1 and set(given.get("strides", [1])) == {1} and not any(given.get("pads", [0]))
    return plain and given.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID", b"SAME_UPPER", b"SAME_LOWER")


def integer_products(model: onnx.ModelProto, heads: Collection[str]) -> onnx.ModelProto:
    """Write 1x1 convolutions of quantized features as matrix products of channels-last ones, weights in 8 bits.

    ONNX Runtime has integer products that write floats, and no such convolution.

    Args:
        model: A graph with Q/DQ pairs in which these convolutions read a DequantizeLinear, and have float weights.
        heads: Their names.
    """
    fixed = constants(model)
    arrays: dict[str, npt.NDArray[Any]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.name not in heads:
            nodes.append(node)
            continue
        name = node.name
        columns = fixed[node.input[1]][:, :, 0, 0].astype(np.float64)
        scale = weight_scales(columns)
        weight, step, zero = f"{name}.columns", f"{name}.columns.scale", f"{name}.columns.zero_point"
        arrays[weight] = np.clip(np.round(columns / scale), -WEIGHT_LEVELS, WEIGHT_LEVELS).astype(np.int8).T
        arrays[step] = scale[:, 0].astype(np.float32)
        arrays[zero] = np.zeros(len(scale), np.int8)
        bias = fixed[node.input[2]] if len(node.input) > 2 else np.zeros(len(scale), np.float32)
        arrays[f"{name}.bias"] = bias.reshape(-1, 1, 1)
        last, product, first = f"{name}.last", f"{name}.product", f"{name}.first"
        nodes += [
            helper.make_node("Transpose", [node.input[0]], [last], last, perm=TO_CHANNELS_LAST),
            helper.make_node("DequantizeLinear", [weight, step, zero], [f"{weight}.float"], weight, axis=1),
            helper.make_node("MatMul", [last, f"{weight}.float"], [product], name),
            helper.make_node("Transpose", [product], [first], first, perm=TO_CHANNELS_FIRST),
            helper.make_node("Add", [first, f"{name}.bias"], [node.output[0]], f"{name}.biased"),
        ]
    return rewritten(model, nodes, arrays) if arrays else model
