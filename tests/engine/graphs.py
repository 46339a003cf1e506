"""Small networks as ONNX bytes: enough operators to be real, few enough to compile in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

HEIGHT, WIDTH, K = 24, 32, 6


def weight(name: str, *shape: int, seed: int = 0, scale: float = 0.2) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * scale
    return numpy_helper.from_array(values, name)


def constant(name: str, values: Any, dtype: str) -> Any:
    return numpy_helper.from_array(np.array(values, dtype), name)


def model(
    nodes: Sequence[Any],
    inputs: Sequence[tuple[str, int, Sequence[int | str]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str]]],
    initializers: Sequence[Any] = (),
    opset: int = 17,
) -> bytes:
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        list(initializers),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(made.SerializeToString())


def camera_network(seed: int = 0) -> bytes:
    """`images` uint8 NHWC → `features` float32 NCHW at half size: Cast, Transpose, Conv, Relu, Conv, Add, Relu."""
    node = helper.make_node
    return model(
        [
            node("Cast", ["images"], ["float"], name="cast", to=TensorProto.FLOAT),
            node("Transpose", ["float"], ["nchw"], name="transpose", perm=[0, 3, 1, 2]),
            node("Mul", ["nchw", "scale"], ["scaled"], name="normalize"),
            node(
                "Conv", ["scaled", "w1"], ["c1"], name="stage1/conv", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]
            ),
            node("Relu", ["c1"], ["r1"], name="stage1/relu"),
            node("Conv", ["r1", "w2"], ["c2"], name="stage2/conv", kernel_shape=[3, 3], pads=[1] * 4),
            node("Add", ["c2", "r1"], ["sum"], name="stage2/add"),
            node("Relu", ["sum"], ["features"], name="stage2/relu"),
        ],
        [("images", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [("features", TensorProto.FLOAT, ["batch", 8, HEIGHT // 2, WIDTH // 2])],
        [
            constant("scale", 1 / 255, "f4"),
            weight("w1", 8, 3, 3, 3, seed=seed),
            weight("w2", 8, 8, 3, 3, seed=seed + 1),
        ],
    )


def affine(scale: float = 2.0, offset: float = 1.0) -> bytes:
    """`x` float32 (batch, 4) → `y` = x * scale + offset."""
    return model(
        [
            helper.make_node("Mul", ["x", "scale"], ["scaled"], name="mul"),
            helper.make_node("Add", ["scaled", "offset"], ["y"], name="add"),
        ],
        [("x", TensorProto.FLOAT, ["batch", 4])],
        [("y", TensorProto.FLOAT, ["batch", 4])],
        [constant("scale", scale, "f4"), constant("offset", offset, "f4")],
    )
