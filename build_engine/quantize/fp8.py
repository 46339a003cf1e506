"""FP8: the Q/DQ pairs that INT8 has, with E4M3 floats in them (arXiv 2209.05433)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from build_engine.graph import constants, consumers
from build_engine.quantize.rewrite import rewritten
from build_engine.quantize.tune import WEIGHT_LEVELS
from build_engine.quantize.weights import attributes

LARGEST = 448.0
"""Largest finite E4M3 value; an infinity it does not have."""
OPSET = 19
"""The first operator set whose QuantizeLinear writes FP8."""


def as_float8(model: onnx.ModelProto, source: onnx.ModelProto) -> onnx.ModelProto:
    """Exchange the integers of every pair for floats: a scale is then `largest / 448` where it was `largest / 127`.

    Args:
        model: A graph with symmetric INT8 pairs, operator set 19 or newer.
        source: The float graph that it was made from, whose weights are rounded anew.
    """
    dtype = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
    fixed, weights, readers = constants(model), constants(source), consumers(model)
    read = {node.name: node.input for node in source.graph.node}
    arrays: dict[str, npt.NDArray[Any]] = {}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        values, scale, zero_point = node.input
        arrays[scale] = (fixed[scale].astype(np.float64) * WEIGHT_LEVELS / LARGEST).astype(np.float32)
        arrays[zero_point] = np.zeros(fixed[zero_point].shape, dtype)
        if values in fixed:
            reader = readers[node.output[0]][0]
            weight = weights[read[reader.name][list(reader.input).index(node.output[0])]]
            step = np.moveaxis(
                arrays[scale].reshape((-1,) + (1,) * (weight.ndim - 1)), 0, attributes(node).get("axis", 1)
            )
            arrays[values] = np.clip(weight / step, -LARGEST, LARGEST).astype(dtype)
    return rewritten(model, list(model.graph.node), arrays)
