"""What a CPU can compute in place of types that it has no kernels for.

ONNX Runtime's CPU kernels know neither BF16 convolutions nor, safely, FP8 pairs: its fusions of Q/DQ pairs take E4M3
for integers. So accuracy is measured on a graph of FP32 kernels in which values are rounded wherever the other graph
holds them in the narrow type. Tensor cores multiply the same rounded values and add in FP32 too. Where TensorRT fuses
operators it rounds less often, never more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from build_engine.graph import constants, with_shapes
from build_engine.quantize.rewrite import rewritten
from build_engine.quantize.weights import attributes

NARROW = frozenset({TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN})


def emulated(model: onnx.ModelProto) -> onnx.ModelProto:
    """A graph that computes the same numbers with FP32 kernels; the graph itself where it has no narrow type."""
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    if not NARROW & {*types.values(), *(attributes(n).get("to") for n in model.graph.node if n.op_type == "Cast")}:
        return model
    types |= {value.name: value.type.tensor_type.elem_type for value in with_shapes(model).graph.value_info}
    fixed = constants(model)
    arrays: dict[str, npt.NDArray[Any]] = {
        name: fixed[name].astype(np.float32) for name in fixed if types[name] == TensorProto.BFLOAT16
    }
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and types[node.input[2]] == TensorProto.FLOAT8E4M3FN:
            nodes += _rounded_to_8_bits(node)
        elif node.op_type == "DequantizeLinear" and types[node.input[2]] == TensorProto.FLOAT8E4M3FN:
            if node.input[0] in fixed:
                arrays[node.output[0]] = _stored(node, fixed)
            else:
                wide = f"{node.output[0]}.wide"
                nodes.append(
                    helper.make_node("Cast", [node.input[0]], [wide], f"{node.name}/wide", to=TensorProto.FLOAT)
                )
                nodes.append(helper.make_node("Mul", [wide, node.input[1]], list(node.output), node.name))
        else:
            nodes += _rounded_to_bf16(node, types)
    return rewritten(model, nodes, arrays)


def _rounded_to_bf16(node: onnx.NodeProto, types: dict[str, int]) -> list[onnx.NodeProto]:
    """A node that reads and writes FP32, its BF16 outputs rounded."""
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    if node.op_type == "Cast" and types.get(node.output[0]) == TensorProto.BFLOAT16:
        copy.op_type = "Identity"
        del copy.attribute[:]
    rounded = []
    for index, name in enumerate(node.output):
        if types.get(name) == TensorProto.BFLOAT16:
            wide, narrow = f"{name}.wide", f"{name}.narrow"
            copy.output[index] = wide
            rounded += [
                helper.make_node("Cast", [wide], [narrow], f"{narrow}", to=TensorProto.BFLOAT16),
                helper.make_node("Cast", [narrow], [name], f"{wide}", to=TensorProto.FLOAT),
            ]
    return [copy, *rounded]


def _rounded_to_8_bits(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    scaled, (values, scale, _) = f"{node.output[0]}.scaled", node.input
    return [
        helper.make_node("Div", [values, scale], [scaled], f"{node.name}/scaled"),
        helper.make_node("Cast", [scaled], list(node.output), node.name, to=TensorProto.FLOAT8E4M3FN, saturate=1),
    ]


def _stored(node: onnx.NodeProto, fixed: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """What a constant of FP8 stands for."""
    narrow, scale = fixed[node.input[0]].astype(np.float32), fixed[node.input[1]].astype(np.float32)
    axis = attributes(node).get("axis", 1) if scale.ndim else 0
    return np.multiply(narrow, np.moveaxis(scale.reshape((-1,) + (1,) * (narrow.ndim - 1)), 0, axis), dtype=np.float32)
