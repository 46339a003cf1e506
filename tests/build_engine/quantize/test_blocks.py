"""The first layer over blocks of pixels is the first layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.compile.cpu import kernels
from build_engine.graph import Tensors, serialize
from build_engine.progress import Silent
from build_engine.quantize import CPU_INT8, calibrate, choose_limits, lower_precision_core, to_int8
from build_engine.quantize.blocks import Blocks, find_blocks, read_in_blocks
from build_engine.quantize.int8 import quantized_nodes, quantized_tensors
from build_engine.quantize.outputs import relative_error
from build_engine.quantize.statistics import watched
from build_engine.session import Session

HEIGHT, WIDTH = 12, 24
SEEN = "relu_DequantizeLinear_Output"


def network(
    kernel: int = 3,
    stride: int = 2,
    padding: int = 1,
    mean: tuple[float, ...] = (118.0, 118.0, 118.0),
    width: int = WIDTH,
    rows: bool = False,
    **attributes: object,
) -> onnx.ModelProto:
    """A camera's bytes, less the mean, through three convolutions."""
    draw, channels = np.random.default_rng(0), len(mean)
    arrays = {
        "mean": np.array(mean, np.float32) if rows else np.array(mean, np.float32).reshape(1, -1, 1, 1),
        "a": draw.normal(size=(8, channels, kernel, kernel)) / 60,
        "a.bias": draw.normal(size=8),
        "b": draw.normal(size=(16, 8, 3, 3)) / 8,
        "c": draw.normal(size=(4, 16, 1, 1)),
    }
    given: dict[str, object] = {"strides": [stride] * 2, "pads": [padding] * 4} | attributes
    order = ("Sub", "Transpose") if rows else ("Transpose", "Sub")
    nodes = [helper.make_node("Cast", ["x"], ["t0"], "cast", to=TensorProto.FLOAT)]
    for index, kind in enumerate(order):
        read, written = [f"t{index}"], [f"t{index + 1}"]
        if kind == "Sub":
            nodes.append(helper.make_node(kind, [*read, "mean"], written, "mean"))
        else:
            nodes.append(helper.make_node(kind, read, written, "transpose", perm=(0, 3, 1, 2)))
    nodes += [
        helper.make_node("Conv", ["t2", "a", "a.bias"], ["p"], "first", **given),
        helper.make_node("Relu", ["p"], ["relu"], "relu"),
        helper.make_node("Conv", ["relu", "b"], ["q"], "second", pads=[1] * 4),
        helper.make_node("Relu", ["q"], ["r"], "relu2"),
        helper.make_node("Conv", ["r", "c"], ["y"], "head"),
    ]
    weights = [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in arrays.items()]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["batch", HEIGHT, width, channels])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))


def frames(model: onnx.ModelProto, count: int = 1, seed: int = 0) -> Tensors:
    sizes = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return {"x": np.random.default_rng(seed).integers(0, 256, (count, *sizes), np.uint8)}


def pairs(model: onnx.ModelProto, *, in_blocks: bool) -> onnx.ModelProto:
    """The CPU's graph, its first layer in blocks, or on the same bytes pixel by pixel."""
    core = lower_precision_core(model)
    nodes = quantized_nodes(model, core, CPU_INT8)
    samples = [frames(model, seed=seed) for seed in range(8)]
    limits = choose_limits(calibrate(model, quantized_tensors(model, nodes), samples, Silent()), "max", symmetric=False)
    if in_blocks:
        return to_int8(model, core, limits, CPU_INT8)
    blocks = found(model)
    return to_int8(model, core, limits | {blocks.tensor: blocks.limits}, replace(CPU_INT8, channels_last=False))


def found(model: onnx.ModelProto) -> Blocks:
    blocks = find_blocks(model, "first")
    assert blocks is not None
    return blocks


def first_layer(model: onnx.ModelProto, feed: Tensors) -> np.ndarray:
    return Session(watched(model, [SEEN])).run(feed, [SEEN])[SEEN]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 2, 1), (3, 1, 1), (7, 2, 3), (5, 1, 2), (4, 4, 0), (2, 2, 0), (6, 2, 2)]
)
@pytest.mark.parametrize("mean", [(118.0,) * 3, (118.0,)], ids=["colour", "gray"])
def test_blocks_compute_what_pixels_do(kernel: int, stride: int, padding: int, mean: tuple[float, ...]) -> None:
    model = network(kernel, stride, padding, mean)
    feed = frames(model, count=2, seed=99)
    plain = pairs(model, in_blocks=False)
    np.testing.assert_array_equal(first_layer(read_in_blocks(plain, found(model)), feed), first_layer(plain, feed))


@pytest.mark.parametrize("rows", [False, True], ids=["per channel", "in rows"])
def test_a_mean_that_differs_per_channel_is_exact_but_at_the_border(rows: bool) -> None:
    model = network(mean=(104.0, 117.0, 124.0), rows=rows)
    assert found(model).zero_point == 115
    feed = frames(model, seed=99)
    wanted = Session(watched(model, ["relu"])).run(feed, ["relu"])["relu"]
    given = first_layer(pairs(model, in_blocks=True), feed)
    assert relative_error(wanted[..., 1:, 1:], given[..., 1:, 1:]) < 0.01
    assert relative_error(wanted, given) < 0.06


def test_without_a_mean_the_zero_point_is_black() -> None:
    assert found(network(mean=(0.0, 0.0, 0.0))).zero_point == 0


def test_nothing_in_float_is_left_before_the_heads() -> None:
    counted = kernels(serialize(pairs(network(), in_blocks=True)))
    assert counted["QLinearConv"] == 2
    assert not any(counted[kind] for kind in ("Cast", "Sub", "QuantizeLinear", "Conv", "FusedConv")), counted
    assert counted["MatMulIntegerToFloat"] == 1, counted


@pytest.mark.parametrize(
    "model",
    [
        network(width=26),
        network(dilations=[2, 2], pads=[2] * 4),
        network(stride=2, padding=0),
        network(auto_pad="SAME_UPPER", pads=None),
    ],
    ids=["rows do not divide", "dilated", "an output pixel short", "padding to be worked out"],
)
def test_other_first_layers_stay_in_float(model: onnx.ModelProto) -> None:
    assert find_blocks(model, "first") is None
    assert quantized_nodes(model, lower_precision_core(model), CPU_INT8) == ("second", "relu2")


@pytest.mark.parametrize("shared", [(), ("a.bias",), ("a", "a.bias")], ids=["own", "one bias", "same weights"])
def test_two_layers_may_read_one_frame(shared: tuple[str, ...]) -> None:
    model = network()
    other = onnx.NodeProto()
    other.CopyFrom(next(node for node in model.graph.node if node.name == "first"))
    other.name, other.output[0], other.input[1], other.input[2] = "other", "other", "other.weight", "other.bias"
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for place, (name, source) in enumerate((("other.weight", "a"), ("other.bias", "a.bias")), 1):
        if source in shared:
            other.input[place] = source
            continue
        array = numpy_helper.to_array(weights[source])
        model.graph.initializer.append(numpy_helper.from_array(array[::-1].copy(), name))
    at = next(index for index, node in enumerate(model.graph.node) if node.name == "relu")
    model.graph.node.insert(at, other)
    model.graph.node.insert(at + 1, helper.make_node("Add", ["p", "other"], ["both"], "both"))
    model.graph.node[at + 2].input[0] = "both"
    model = onnx.shape_inference.infer_shapes(model)
    assert kernels(serialize(pairs(model, in_blocks=True)))["QLinearConv"] == 3
    feed = frames(model, seed=99)
    wanted = Session(watched(model, ["relu"])).run(feed, ["relu"])["relu"]
    assert relative_error(wanted, first_layer(pairs(model, in_blocks=True), feed)) < 0.02


def test_only_a_cameras_bytes_are_read_so() -> None:
    model = network()
    assert find_blocks(model, "second") is None
    for node in model.graph.node:
        if node.name == "mean":
            node.op_type = "Mul"
    assert find_blocks(model, "first") is None
