from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from build_engine.compile.cpu import kernels
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Silent
from build_engine.quantize import (
    CPU_INT8,
    METHODS,
    TENSORRT_INT8,
    Method,
    Recipe,
    calibrate,
    choose_limits,
    lower_precision_core,
    to_int8,
)
from build_engine.quantize.int8 import quantized_nodes, quantized_tensors
from build_engine.session import Session
from engine.reference import l2_agreement
from engine.tensorrt.plan import PlanOptions, build_plan


def quantize(model: onnx.ModelProto, recipe: Recipe, method: Method = "percentile") -> onnx.ModelProto:
    core = lower_precision_core(model)
    samples = [random_inputs(tensor_specs(feeds(model)), 1, seed) for seed in range(8)]
    ranges = calibrate(model, quantized_tensors(model, quantized_nodes(model, core, recipe)), samples, Silent())
    return to_int8(model, core, choose_limits(ranges, method, symmetric=recipe.symmetric), recipe)


@pytest.mark.parametrize("recipe", [CPU_INT8, TENSORRT_INT8], ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("method", METHODS)
def test_int8_answers_nearly_what_float_answers(
    fused_detector: onnx.ModelProto, recipe: Recipe, method: Method
) -> None:
    frame = random_inputs(tensor_specs(feeds(fused_detector)), 1, 99)
    wanted = Session(fused_detector).run(frame)["heat"]
    found = Session(quantize(fused_detector, recipe, method)).run(frame)["heat"]
    assert l2_agreement(found, wanted) > 0.95


def test_the_cpus_graph_really_runs_on_integers(fused_detector: onnx.ModelProto) -> None:
    counted = kernels(serialize(quantize(fused_detector, CPU_INT8)))
    assert counted["QLinearConv"] == 4, counted
    assert counted["MatMulIntegerToFloat"] == 2, "the heads"
    assert not counted["Conv"] and not counted["FusedConv"], counted


def test_tensorrts_graph_has_no_zero_points_and_no_quantized_bias(fused_detector: onnx.ModelProto) -> None:
    model = quantize(fused_detector, TENSORRT_INT8)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert all(not constants[node.input[2]].any() for node in pairs)
    assert all(array.dtype != np.int32 for array in constants.values())
    assert all(constants[node.input[0]].dtype == np.int8 for node in pairs if node.input[0] in constants)


def test_tensorrts_activations_stay_inside_the_convolutions_kernel(fused_detector: onnx.ModelProto) -> None:
    model = quantize(fused_detector, TENSORRT_INT8)
    relus = {node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    convolved = {node.output[0] for node in model.graph.node if node.op_type == "Conv"}
    assert relus <= convolved, "a Q/DQ pair between Conv and Relu would split them"


def test_tensorrt_compiles_it(fused_detector: onnx.ModelProto) -> None:
    plan = build_plan(serialize(quantize(fused_detector, TENSORRT_INT8)), "rtx", PlanOptions(max_batch=2))
    full = build_plan(serialize(fused_detector), "rtx", PlanOptions(max_batch=2))
    assert plan.weights_bytes is not None and full.weights_bytes is not None
    assert plan.weights_bytes < 0.5 * full.weights_bytes


def test_weights_have_a_scale_per_output_channel(fused_detector: onnx.ModelProto) -> None:
    for recipe in (CPU_INT8, TENSORRT_INT8):
        model = quantize(fused_detector, recipe)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        scales = [
            constants[node.input[1]].size
            for node in model.graph.node
            if node.op_type == "DequantizeLinear" and constants.get(node.input[0], np.zeros(0)).ndim == 4
        ]
        assert scales and min(scales) >= 16


def test_inputs_and_outputs_are_untouched(fused_detector: onnx.ModelProto) -> None:
    model = quantize(fused_detector, CPU_INT8)
    assert list(model.graph.output) == list(fused_detector.graph.output)
    assert feeds(model)[0].type.tensor_type.elem_type == TensorProto.UINT8
    onnx.checker.check_model(model)


def test_the_same_ranges_give_the_same_bytes(fused_detector: onnx.ModelProto) -> None:
    assert serialize(quantize(fused_detector, CPU_INT8)) == serialize(quantize(fused_detector, CPU_INT8))


def test_what_has_no_integer_kernel_is_left_in_float_on_cpus_alone() -> None:
    draw = np.random.default_rng(0)
    arrays = {"a": (8, 3, 3, 3), "b": (8, 8, 2, 2), "c": (8, 8, 3, 3), "d": (4, 8, 1, 1)}
    nodes = [
        onnx.helper.make_node("Conv", ["x", "a"], ["p"], "first"),
        onnx.helper.make_node("ConvTranspose", ["p", "b"], ["q"], "up", strides=[2, 2]),
        onnx.helper.make_node("Conv", ["q", "c"], ["r"], "middle"),
        onnx.helper.make_node("Conv", ["r", "d"], ["y"], "head"),
    ]
    weights = [numpy_helper.from_array(draw.normal(size=size).astype(np.float32), n) for n, size in arrays.items()]
    x = onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 16, 16])
    y = onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], weights)
    model = onnx.shape_inference.infer_shapes(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])
    )
    core = lower_precision_core(model)
    assert quantized_nodes(model, core, CPU_INT8) == ("middle",)
    assert quantized_nodes(model, core, TENSORRT_INT8) == ("first", "up", "middle")
