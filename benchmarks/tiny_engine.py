"""A camera engine that takes next to no time, so that what is measured is everything around it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.small_bundle import write_bundle
from engine.manifest import Preprocessing
from engine.tensors import TensorSpec

WIDTH, HEIGHT = 32, 16


def write_tiny_bundle(path: Path) -> Path:
    """Write a bundle whose engine is the mean of 32x16 pixels.

    They are picked from the frame (nearest), so that no time is spent on a resize that belongs to no transport.

    Args:
        path: Where; must not exist.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "axes"], ["mean"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 3])],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(np.array([1, 2], np.int64), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return write_bundle(
        path,
        model.SerializeToString(),
        TensorSpec(name="images", dtype="uint8", shape=("batch", HEIGHT, WIDTH, 3)),
        TensorSpec(name="mean", dtype="float32", shape=("batch", 3)),
        Preprocessing(input="images", color="rgb", width=WIDTH, height=HEIGHT, resize="stretch", kernel="nearest"),
    )
