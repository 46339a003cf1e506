"""Types that no CPU kernel has, as FP32 kernels with rounded values."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_engine.quantize import emulated
from build_engine.session import Session

BFLOAT16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
FLOAT8 = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)
VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=8, max_size=8)


def graph(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], opset: int) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy")
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    made = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


@given(VALUES)
def test_bf16_products_are_of_rounded_factors_and_rounded_themselves(values: list[float]) -> None:
    weight = np.linspace(-3, 3, 8, dtype=np.float32).astype(BFLOAT16)
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], "in", to=TensorProto.BFLOAT16),
        helper.make_node("Mul", ["narrow", "w"], ["product"], "mul"),
        helper.make_node("Cast", ["product"], ["y"], "out", to=TensorProto.FLOAT),
    ]
    x = np.array([values], np.float32)
    wanted = (x.astype(BFLOAT16).astype(np.float32) * weight.astype(np.float32)).astype(BFLOAT16).astype(np.float32)
    found = Session(emulated(graph(nodes, {"w": weight}, 22))).run({"x": x})["y"]
    np.testing.assert_array_equal(found, wanted)


@given(VALUES)
def test_fp8_pairs_round_to_the_nearest_and_saturate(values: list[float]) -> None:
    weight = np.linspace(-400, 400, 8, dtype=np.float32).astype(FLOAT8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["v"], "v"),
        helper.make_node("Mul", ["d", "v"], ["y"], "mul"),
    ]
    scale = np.float32(0.25)
    x = np.array([values], np.float32)
    seen = np.clip(x / scale, -448, 448).astype(FLOAT8).astype(np.float32) * scale
    model = graph(nodes, {"s": scale, "z": np.zeros((), FLOAT8), "w": weight}, 19)
    found = Session(emulated(model)).run({"x": x})["y"]
    np.testing.assert_allclose(found, seen * (weight.astype(np.float32) * scale), rtol=1e-6)


def test_what_a_cpu_computes_is_left_alone(fused_detector: onnx.ModelProto) -> None:
    assert emulated(fused_detector) is fused_detector
