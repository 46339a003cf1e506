from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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


class ConvTranspose(OpRun):
    """Transposed convolution of any number of axes: ``y[s p + d k - begin] += x[p] W[k]``, group by group.

    The ONNX reference implementation knows one group only.
    """

    def _run(
        self,
        x: npt.NDArray[np.float64],
        weight: npt.NDArray[np.float64],
        bias: npt.NDArray[np.float64] | None = None,
        *,
        auto_pad: str = "NOTSET",
        dilations: Sequence[int] | None = None,
        group: int = 1,
        output_padding: Sequence[int] | None = None,
        output_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
        **_: object,
    ) -> tuple[npt.NDArray[np.float64]]:
        axes, kernel = x.ndim - 2, weight.shape[2:]
        steps, gaps, extra = strides or [1] * axes, dilations or [1] * axes, output_padding or [0] * axes
        reach = [s * (n - 1) + d * (k - 1) + 1 for s, n, d, k in zip(steps, x.shape[2:], gaps, kernel, strict=True)]
        begins, sizes = _cut(reach, extra, auto_pad, output_shape, pads, steps, x.shape[2:])
        grouped = x.reshape(x.shape[0], group, -1, *x.shape[2:])
        taps = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        room = [max(r + e, b + n) for r, e, b, n in zip(reach, extra, begins, sizes, strict=True)]
        whole = np.zeros((x.shape[0], group, weight.shape[1], *room))
        for tap in np.ndindex(*kernel):
            spread = (
                slice(d * k, d * k + s * (n - 1) + 1, s)
                for d, k, s, n in zip(gaps, tap, steps, x.shape[2:], strict=True)
            )
            places: tuple[Any, ...] = (..., *spread)
            at: tuple[Any, ...] = (..., *tap)
            whole[places] += np.einsum("ngi...,gio->ngo...", grouped, taps[at])
        inside = (slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))
        cut: tuple[Any, ...] = (..., *inside)
        y = whole[cut].reshape(x.shape[0], -1, *sizes)
        return (y if bias is None else y + bias.reshape(-1, *[1] * axes),)


def _cut(
    reach: Sequence[int],
    extra: Sequence[int],
    auto_pad: str,
    output_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int],
    image: Sequence[int],
) -> tuple[list[int], list[int]]:
    """Where a transposed convolution's output begins in all that it reaches, and its size, per axis."""
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and not output_shape:
        output_shape = [min(n * s, r) for n, s, r in zip(image, strides, reach, strict=True)]
    if output_shape:
        sizes = list(output_shape)[-len(reach) :]
        total = [max(r + e - size, 0) for r, e, size in zip(reach, extra, sizes, strict=True)]
        return [cut // 2 if auto_pad == "SAME_UPPER" else cut - cut // 2 for cut in total], sizes
    flat = list(pads) if pads and auto_pad == "NOTSET" else [0] * (2 * len(reach))
    begins, ends = flat[: len(reach)], flat[len(reach) :]
    return begins, [r + e - b - f for r, e, b, f in zip(reach, extra, begins, ends, strict=True)]


def float64_evaluator(model: onnx.ModelProto) -> ReferenceEvaluator:
    """Evaluates a model in float64; its inputs are to be given in float64 too."""
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    better: list[type[OpRun]] = [ConvTranspose, BatchNormalization] if opset < 14 else [ConvTranspose]
    return ReferenceEvaluator(in_double(model), new_ops=better)


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
