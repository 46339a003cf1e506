from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from build_engine.graph import constants
from build_engine.progress import Silent
from build_engine.quantize.calibration import Range, calibrate
from build_engine.quantize.equalize import Scales, equalizable, equalize
from build_engine.quantize.statistics import patches
from build_engine.session import Session


def chain(middle: list[onnx.NodeProto], groups: int = 1, seed: int = 0, depthwise: bool = False) -> onnx.ModelProto:
    """conv `first` (3 to 8 channels), `middle` from tensor `a` to tensor `b`, conv `last` (8 to 4 channels)."""
    draw = np.random.default_rng(seed)
    scale = 10.0 ** draw.uniform(-2, 2, (8, 1, 1, 1))
    arrays = {
        "first.w": draw.normal(size=(8, 3, 3, 3)) * scale,
        "first.b": draw.normal(size=8) * scale.ravel(),
        "last.w": draw.normal(size=(4, 8 // groups, 3, 3)),
    }
    nodes = [helper.make_node("Conv", ["x", "first.w", "first.b"], ["a"], "first", pads=[1] * 4), *middle]
    if depthwise:
        arrays["dw.w"] = draw.normal(size=(8, 1, 3, 3))
        arrays["dw.b"] = draw.normal(size=8)
        nodes.append(helper.make_node("Conv", ["b", "dw.w", "dw.b"], ["c"], "dw", group=8, pads=[1] * 4))
        nodes.append(helper.make_node("Relu", ["c"], ["d"], "relu.dw"))
    nodes.append(helper.make_node("Conv", ["d" if depthwise else "b", "last.w"], ["y"], "last", group=groups))
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 9, 11])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)]
    )
    return onnx.shape_inference.infer_shapes(model)


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], f"relu.{source}")


def outputs(model: onnx.ModelProto) -> np.ndarray:
    x = np.random.default_rng(9).normal(size=(1, 3, 9, 11)).astype(np.float32)
    return Session(model).run({"x": x})["y"]


def changed(scales: Scales) -> int:
    """Channels that were scaled by more than a tenth."""
    return sum(int((np.abs(np.log(scale)) > np.log(1.1)).sum()) for scale in scales.values())


def spread(model: onnx.ModelProto) -> float:
    """Largest over smallest channel of what `first` writes."""
    rows = np.abs(constants(model)["first.w"]).max(axis=(1, 2, 3))
    return float(rows.max() / rows.min())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), depthwise=st.booleans(), groups=st.sampled_from([1, 2, 4]))
def test_equalization_is_exact_across_relu_and_depthwise_convolutions(seed: int, depthwise: bool, groups: int) -> None:
    model = chain([relu("a", "b")], groups, seed, depthwise)
    equalized, scales = equalize(model)
    assert changed(scales) > 0
    wanted = outputs(model)
    np.testing.assert_allclose(outputs(equalized), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    assert spread(equalized) < spread(model)


@pytest.mark.parametrize(
    "middle",
    [
        [helper.make_node("LeakyRelu", ["a"], ["b"], "leaky", alpha=0.1)],
        [helper.make_node("MaxPool", ["a"], ["p"], "pool", kernel_shape=[2, 2]), relu("p", "b")],
        [relu("a", "r"), helper.make_node("Add", ["a", "r"], ["b"], "add")],
    ],
    ids=["leaky", "pool", "residual"],
)
def test_it_is_exact_across_what_is_homogeneous(middle: list[onnx.NodeProto]) -> None:
    model = chain(middle)
    equalized, scales = equalize(model)
    assert changed(scales) > 0
    wanted = outputs(model)
    np.testing.assert_allclose(outputs(equalized), wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("kind", ["Sigmoid", "Clip", "HardSwish", "Exp"])
def test_nothing_is_scaled_across_what_is_not_homogeneous(kind: str) -> None:
    assert not equalizable(chain([helper.make_node(kind, ["a"], ["b"], "bend")]))


def test_nothing_that_leaves_the_network_is_scaled() -> None:
    model = chain([relu("a", "b")])
    model.graph.output.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 8, 9, 11]))
    assert not equalizable(model)


def test_by_activations_channels_reach_alike() -> None:
    model = chain([relu("a", "b")])
    peaks = {"b": np.array([1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1e3, 0.0])}
    equalized, scales = equalize(model, peaks)
    before, after = (np.abs(constants(m)["last.w"]).max(axis=(0, 2, 3)) for m in (model, equalized))
    reached = peaks["b"][:7] * before[:7] / after[:7]
    assert changed(scales) >= 6 and reached.max() / reached.min() < 1e3
    assert after[7] == pytest.approx(before[7]), "a channel that is never lit is left alone"


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), depthwise=st.booleans(), groups=st.sampled_from([1, 2, 4]))
def test_what_an_equalized_network_holds_follows_from_what_the_network_held(
    seed: int, depthwise: bool, groups: int
) -> None:
    model = chain([relu("a", "b")], groups, seed, depthwise)
    draw = np.random.default_rng(seed)
    samples = [{"x": draw.normal(size=(1, 3, 9, 11)).astype(np.float32)} for _ in range(3)]
    equalized, scales = equalize(model)
    layers = ["first", "dw", "last"]
    seen, again = (patches(one, layers, samples, Silent()) for one in (model, equalized))
    reads = {node.name: node.input[0] for node in model.graph.node}
    for name, wanted in again.items():
        scale = scales.get(reads[name], np.ones(3))
        given_ = seen[name].divided(scale)
        np.testing.assert_allclose(given_.mean, wanted.mean, rtol=1e-4, atol=1e-5 * np.abs(wanted.mean).max())
        assert given_.moments is not None and wanted.moments is not None
        np.testing.assert_allclose(given_.moments, wanted.moments, rtol=1e-3, atol=1e-5 * np.abs(wanted.moments).max())
    tensors = list(scales)
    before = calibrate(model, tensors, samples, Silent(), tensors)
    after = calibrate(equalized, tensors, samples, Silent(), tensors)
    for name, range_ in after.items():
        told = before[name].divided(scales[name])
        assert (told.lowest, told.highest) == pytest.approx((range_.lowest, range_.highest), rel=1e-4)
        np.testing.assert_allclose(told.values, range_.values, rtol=1e-3, atol=1e-4 * np.abs(range_.values).max())
        assert told.channels is not None and range_.channels is not None
        np.testing.assert_allclose(told.channels.peaks, range_.channels.peaks, rtol=1e-4)


def test_a_range_without_channels_is_not_divided() -> None:
    with pytest.raises(ValueError, match="by_channel"):
        Range(-1.0, 1.0, np.zeros(1, np.float32)).divided(np.ones(8))
