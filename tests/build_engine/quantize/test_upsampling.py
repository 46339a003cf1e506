"""Repeated pixels are what a nearest Resize gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.quantize.upsampling import repeat_pixels
from build_engine.session import Session


def between_pairs(factors: tuple[float, float], by: str = "scales", **attributes: str) -> onnx.ModelProto:
    """Resize of 8-bit features `(N, 5, 4, 6)`, a Q/DQ pair on either side."""
    given = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"} | attributes
    scales, sizes = [1.0, 1.0, *factors], [2, 5, round(4 * factors[0]), round(6 * factors[1])]
    last = np.array(scales, np.float32) if by == "scales" else np.array(sizes, np.int64)
    weights = {"step": np.float32(0.1), "zero": np.uint8(7), "last": last}
    wanted = ["x.float", "", "last"] if by == "scales" else ["x.float", "", "", "last"]
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "step", "zero"], ["x.float"], "before"),
        helper.make_node("Resize", wanted, ["resized"], "resize", **given),
        helper.make_node("QuantizeLinear", ["resized", "step", "zero"], ["y"], "behind"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [2 if by == "sizes" else "batch", 5, 4, 6])
    y = helper.make_tensor_value_info("y", TensorProto.UINT8, None)
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("factors", [(2, 2), (1, 3), (4, 2)])
@pytest.mark.parametrize("rule", [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")])
def test_repeated_pixels_are_the_nearest_ones(factors: tuple[int, int], by: str, rule: tuple[str, str]) -> None:
    model = between_pairs(factors, by, coordinate_transformation_mode=rule[0], nearest_mode=rule[1])
    repeated = repeat_pixels(model)
    assert not any(node.op_type in ("Resize", "QuantizeLinear") for node in repeated.graph.node)
    features = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 6), np.uint8)
    wanted = Session(model).run({"x": features})["y"]
    np.testing.assert_array_equal(Session(repeated).run({"x": features})["y"], wanted)


@pytest.mark.parametrize(
    "model",
    [
        between_pairs((1.5, 2)),
        between_pairs((0.5, 0.5)),
        between_pairs((2.01, 2)),
        between_pairs((2, 2), mode="linear"),
        between_pairs((3, 3), nearest_mode="ceil"),
    ],
    ids=["a part of a pixel", "shrinks", "nearly whole", "linear", "rounds up"],
)
def test_other_resizes_are_left(model: onnx.ModelProto) -> None:
    assert repeat_pixels(model) is model
