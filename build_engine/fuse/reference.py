from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

_SMALLER = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})


class BatchNormalization(OpRun):
    """Batch norm of operator sets 9 to 13 at inference.

    The ONNX reference implementation takes the presence of `momentum`, which has a default, for training.
    """

    def _run(
        self, *operands: npt.NDArray[np.float64], epsilon: float = 1e-5, **_: float
    ) -> tuple[npt.NDArray[np.float64]]:
        x, gamma, beta, mean, variance = (
            operand if i == 0 else operand.reshape(-1, *[1] * (operands[0].ndim - 2))
            for i, operand in enumerate(operands)
        )
        return ((x - mean) / np.sqrt(variance + epsilon) * gamma + beta,)


def float64_evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Evaluates a model in float64; its inputs are to be given in float64 too."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return ReferenceEvaluator(in_double(model), new_ops=[BatchNormalization] if opset < 14 else None)


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
