"""Weights of an ONNX graph, read and replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Tuned:
    """A layer's weights, adapted to 8 bits.

    Attributes:
        weight: As in the graph: `(C_out, C_in/groups, kH, kW)` for a convolution.
        bias: `(C_out,)`, or None where the layer has none and needs none.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32] | None


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def replace_constants(model: onnx.ModelProto, arrays: Mapping[str, npt.NDArray[np.float32]]) -> onnx.ModelProto:
    """The same graph with other values in some initializers."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    for tensor in fresh.graph.initializer:
        if tensor.name in arrays:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(arrays[tensor.name]), tensor.name))
    return fresh


def with_tuned(model: onnx.ModelProto, tuned: Mapping[str, Tuned]) -> onnx.ModelProto:
    """The same graph with some layers' weights and biases exchanged.

    Args:
        model: The graph.
        tuned: By the name of the node. A layer that shares its weights gets its own.
    """
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    added: list[onnx.TensorProto] = []
    for node in fresh.graph.node:
        layer = tuned.get(node.name)
        if layer is None:
            continue
        node.input[1] = _add(added, f"{node.name}.weight.tuned", layer.weight)
        if layer.bias is not None:
            name = _add(added, f"{node.name}.bias.tuned", layer.bias)
            if len(node.input) > 2:
                node.input[2] = name
            else:
                node.input.append(name)
    fresh.graph.initializer.extend(added)
    read = {name for node in fresh.graph.node for name in node.input} | {value.name for value in fresh.graph.output}
    kept = [tensor for tensor in fresh.graph.initializer if tensor.name in read]
    del fresh.graph.initializer[:]
    fresh.graph.initializer.extend(kept)
    return fresh


def _add(added: list[onnx.TensorProto], name: str, array: npt.NDArray[np.float32]) -> str:
    added.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
    return name
