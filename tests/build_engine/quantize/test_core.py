from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.camera_input import takes_frames
from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.quantize import fused_arithmetic, lower_precision_core
from build_engine.quantize.core import with_node_names
from tests.build_engine.conftest import CAMERA


def conv(name: str, source: str, target: str, inputs: int, outputs: int) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    weight = numpy_helper.from_array(np.ones((outputs, inputs, 1, 1), np.float32), f"{name}.weight")
    return helper.make_node("Conv", [source, f"{name}.weight"], [target], name), weight


def graph(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [y], weights), opset_imports=[helper.make_opsetid("", 18)]
    )


def test_heads_are_last_the_image_is_first_and_decoding_is_outside(detector: onnx.ModelProto) -> None:
    fused = fuse(takes_frames(detector, CAMERA))
    model = with_node_names(fused.model)
    core = lower_precision_core(model, fused_arithmetic(fused.report))
    kinds = {node.name: node.op_type for node in model.graph.node}
    assert [kinds[name] for name in core.weighted] == ["Conv"] * 4
    assert core.first == core.weighted[:1]
    assert len(core.last) == 2, "the heatmap's and the size's convolution"
    assert {kinds[name] for name in core.between} == {"Relu"}


def test_box_arithmetic_behind_an_exponential_is_no_layer() -> None:
    body, first = conv("body", "x", "features", 3, 8)
    head, second = conv("head", "features", "logits", 8, 4)
    boxes, third = conv("boxes", "sizes", "y", 4, 4)
    model = graph([body, head, helper.make_node("Exp", ["logits"], ["sizes"], "exp"), boxes], [first, second, third])
    core = lower_precision_core(model)
    assert core.weighted == ("body",)
    assert core.last == ("head",)


def test_the_expectation_over_a_boxs_distribution_is_decoding() -> None:
    body, first = conv("body", "x", "features", 3, 8)
    head, second = conv("head", "features", "logits", 8, 4)
    expectation, third = conv("dfl", "shares", "y", 4, 1)
    softmax = helper.make_node("Softmax", ["logits"], ["shares"], "softmax", axis=1)
    core = lower_precision_core(graph([body, head, softmax, expectation], [first, second, third]))
    assert core.last == ("head",)


def test_what_the_fuser_made_of_additions_and_scales_is_no_layer_at_the_end() -> None:
    body, first = conv("body", "x", "features", 3, 8)
    head, second = conv("head", "features", "offsets", 8, 4)
    centre, third = conv("centre", "offsets", "y", 4, 4)
    model = graph([body, head, centre], [first, second, third])
    assert lower_precision_core(model, {"centre"}).last == ("head",)
    assert lower_precision_core(model).last == ("centre",)


def test_a_network_without_weights_cannot_be_lowered() -> None:
    with pytest.raises(BuildError, match="no convolution or matrix product"):
        lower_precision_core(graph([helper.make_node("Relu", ["x"], ["y"], "relu")], []))


def test_every_node_gets_a_name_of_its_own() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"], "r"),
        helper.make_node("Relu", ["b"], ["y"], "r"),
    ]
    names = [node.name for node in with_node_names(graph(nodes, [])).graph.node]
    assert len(set(names)) == 3 and all(names)
