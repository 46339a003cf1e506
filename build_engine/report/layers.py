"""One line per weighted layer of the fused network: what it is and what it costs."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

import onnx

from build_engine.graph import constants, dimensions
from build_engine.outcome import FLOAT, Built
from build_engine.quantize.core import WEIGHTED


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product.

    Attributes:
        name: The node.
        module: PyTorch module it came from, where known.
        operator: Conv, ConvTranspose, Gemm or MatMul.
        kernel: For example `3x3 s2`, `3x3 dw`.
        input_shape: Of one frame.
        output_shape: Of one frame.
        macs: Multiply-accumulates for one frame.
        parameters: Weights and biases.
        precision: By graph.
    """

    name: str
    module: str
    operator: str
    kernel: str
    input_shape: tuple[int | str, ...]
    output_shape: tuple[int | str, ...]
    macs: int
    parameters: int
    precision: dict[str, str]


def layers(built: Built) -> tuple[Layer, ...]:
    """Every weighted layer of the float graph, in order."""
    model = built.float_graph.model
    weights = constants(model)
    shapes = {
        value.name: dimensions(value)[1:]
        for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)
    }
    modules = {region.name: common_module(region.modules) for region in built.fusion.regions}
    rows = []
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in weights:
            continue
        weight = weights[node.input[1]]
        output = shapes.get(node.output[0], ())
        source = shapes.get(node.input[0], ())
        places = source if node.op_type == "ConvTranspose" else output
        rows.append(
            Layer(
                name=node.name,
                module=modules.get(node.name) or _scope(node),
                operator=node.op_type,
                kernel=kernel(node, weight.shape),
                input_shape=source,
                output_shape=output,
                macs=_macs(node.op_type, weight.shape, places),
                parameters=sum(weights[name].size for name in node.input[1:] if name in weights),
                precision={graph.name: graph.precision_of(node.name) for graph in built.graphs if graph.name != FLOAT},
            )
        )
    return tuple(rows)


def kernel(node: onnx.NodeProto, weight: tuple[int, ...]) -> str:
    """A layer's geometry in the field's shorthand.

    Args:
        node: Conv, ConvTranspose, Gemm or MatMul.
        weight: `(C_out, C_in/groups, kH, kW)` for a convolution.
    """
    if node.op_type not in ("Conv", "ConvTranspose"):
        return "x".join(map(str, weight))
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    text = "x".join(map(str, weight[2:]))
    groups, strides, dilations = given.get("group", 1), given.get("strides", [1]), given.get("dilations", [1])
    if groups > 1:
        text += " dw" if weight[1] == 1 else f" g{groups}"
    if max(strides) > 1:
        text += f" s{max(strides)}"
    if max(dilations) > 1:
        text += f" d{max(dilations)}"
    return text


def _macs(operator: str, weight: tuple[int, ...], places: tuple[int | str, ...]) -> int:
    if operator in ("Conv", "ConvTranspose"):
        area = math.prod(size for size in places[1:] if isinstance(size, int))
        return math.prod(weight) * area
    rows = math.prod(size for size in places[:-1] if isinstance(size, int))
    return math.prod(weight) * rows


def _scope(node: onnx.NodeProto) -> str:
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = [scope for scope in ast.literal_eval(entry.value)[:-1] if scope]
            except (ValueError, SyntaxError):
                return ""
            return str(scopes[-1]) if scopes else ""
    return ""


def common_module(modules: tuple[str, ...]) -> str:
    """The innermost module that holds all of a region's modules."""
    paths = [module.split(".") for module in modules if module]
    if not paths:
        return ""
    shared = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return ".".join(shared) or modules[-1]
