"""A graph written anew with other nodes and constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from build_engine.graph import reads, with_shapes

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
"""Permutations between `(N, H, W, C)` and `(N, C, H, W)`."""


def rewritten(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], arrays: Mapping[str, npt.NDArray[Any]]
) -> onnx.ModelProto:
    """The same graph with other nodes and some constants new or replaced; what nobody reads is left out.

    Args:
        model: The graph as it was.
        nodes: All nodes of the new one, in topological order.
        arrays: Constants by name.
    """
    read = {value.name for value in model.graph.output}
    alive: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if read.intersection(node.output):
            alive.append(node)
            read.update(reads(node))
    result = onnx.ModelProto()
    result.CopyFrom(model)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read and tensor.name not in arrays]
    fresh = [numpy_helper.from_array(np.ascontiguousarray(arrays[name]), name) for name in arrays if name in read]
    del result.graph.node[:], result.graph.initializer[:], result.graph.value_info[:]
    result.graph.node.extend(reversed(alive))
    result.graph.initializer.extend([*kept, *fresh])
    return with_shapes(result)
