from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_SMALLER = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a model with every floating-point weight, input, output and cast in float64.

    For evaluation only: some operators' type constraints do not allow double.
    """
    double = onnx.ModelProto()
    double.CopyFrom(model)
    _graph(double.graph)
    for function in double.functions:
        for node in function.node:
            _node(node)
    return double


def _graph(graph: onnx.GraphProto) -> None:
    for tensor in graph.initializer:
        _tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _SMALLER:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        _node(node)


def _node(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            _tensor(attribute.t)
        elif attribute.type == onnx.AttributeProto.GRAPH:
            _graph(attribute.g)
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            for graph in attribute.graphs:
                _graph(graph)
        elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in _SMALLER:
            attribute.i = TensorProto.DOUBLE
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            listed = [attribute.f] if attribute.name == "value_float" else list(attribute.floats)
            array = np.array(listed, dtype=np.float64).reshape(() if attribute.name == "value_float" else -1)
            attribute.CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(array)))


def _tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _SMALLER:
        array = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
