from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from build_engine.compile.tensorrt import RTX_CAPABILITIES
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Silent
from build_engine.quantize import BF16, calibrate, emulated, half_tensors, lower_precision_core, to_half
from build_engine.quantize.calibration import Range
from build_engine.quantize.opset import at_least
from build_engine.session import Session
from engine.errors import BuildFailed
from engine.reference import l2_agreement
from engine.tensorrt.plan import PlanOptions, build_plan


def test_fp16_answers_what_float_answers_to_three_digits(fused_detector: onnx.ModelProto) -> None:
    frame = random_inputs(tensor_specs(feeds(fused_detector)), 2, 5)
    wanted = Session(fused_detector).run(frame)
    found = Session(to_half(fused_detector, lower_precision_core(fused_detector)).model).run(frame)
    assert l2_agreement(found["heat"], wanted["heat"]) > 0.999
    assert found["scores"].dtype == np.float32


def test_every_layer_is_half_and_every_tensor_is_cast_once(fused_detector: onnx.ModelProto) -> None:
    core = lower_precision_core(fused_detector)
    model = to_half(fused_detector, core).model
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.name in {*core.weighted, *core.last}]
    assert len(layers) == 6 and all(constants[node.input[1]].dtype == np.float16 for node in layers)
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.name.endswith(("fp16", "fp32"))]
    assert len(casts) == 3, "into the core, and out of each head"
    onnx.checker.check_model(model)


def test_decoding_is_not_rounded(fused_detector: onnx.ModelProto) -> None:
    model = to_half(fused_detector, lower_precision_core(fused_detector)).model
    values = (*model.graph.value_info, *model.graph.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    after = [node for node in model.graph.node if node.op_type in ("Sigmoid", "Exp", "MaxPool")]
    assert after and all(types.get(node.input[0]) == TensorProto.FLOAT for node in after)


def test_a_weight_beyond_the_range_of_fp16_keeps_its_layer_in_fp32(fused_detector: onnx.ModelProto) -> None:
    core = lower_precision_core(fused_detector)
    model = onnx.ModelProto()
    model.CopyFrom(fused_detector)
    layer = next(node for node in model.graph.node if node.name == core.weighted[1])
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == layer.input[2])
    bias.CopyFrom(numpy_helper.from_array(np.full(tuple(bias.dims), 1e6, np.float32), bias.name))
    frame = random_inputs(tensor_specs(feeds(model)), 1, 0)
    half = to_half(model, core, calibrate(model, half_tensors(model, core), [frame], Silent()))
    assert half.kept_float.pop(layer.name) == "a weight of 1e+06 exceeds FP16's 65504"
    assert half.kept_float, "layers that read what it computes overflow too"
    assert all("its values reach" in why for why in half.kept_float.values())
    assert np.isfinite(Session(half.model).run(frame)["heat"]).all()


def test_an_output_that_the_core_computes_keeps_its_type_and_name(classifier: onnx.ModelProto) -> None:
    from build_engine.quantize.core import with_node_names

    model = with_node_names(classifier)
    half = to_half(model, lower_precision_core(model)).model
    assert list(half.graph.output) == list(classifier.graph.output)
    image = random_inputs(tensor_specs(feeds(model)), 1, 0)
    assert l2_agreement(Session(half).run(image)["output"], Session(model).run(image)["output"]) > 0.99


def test_tensorrt_compiles_it_to_half_the_weights(fused_detector: onnx.ModelProto) -> None:
    half = to_half(fused_detector, lower_precision_core(fused_detector)).model
    plan = build_plan(serialize(half), "rtx", PlanOptions(max_batch=2))
    full = build_plan(serialize(fused_detector), "rtx", PlanOptions(max_batch=2))
    assert plan.weights_bytes is not None and full.weights_bytes is not None
    assert plan.weights_bytes < 0.65 * full.weights_bytes


def test_bf16_rounds_to_eight_bits_and_overflows_nowhere(fused_detector: onnx.ModelProto) -> None:
    model = at_least(fused_detector, BF16.opset, "BF16")
    core = lower_precision_core(model)
    ranges = {name: Range(-1e30, 1e30, np.zeros(1, np.float32)) for name in half_tensors(model, core)}
    half = to_half(model, core, ranges, form=BF16)
    assert not half.kept_float
    onnx.checker.check_model(half.model)
    frame = random_inputs(tensor_specs(feeds(model)), 2, 5)
    wanted = Session(model).run(frame)["heat"]
    found = Session(emulated(half.model)).run(frame)["heat"]
    finer = Session(to_half(model, core).model).run(frame)["heat"]
    assert 1e-2 > 1 - l2_agreement(found, wanted) > 3 * (1 - l2_agreement(finer, wanted))


def test_tensorrt_compiles_bf16_for_the_gpus_that_have_it_alone(fused_detector: onnx.ModelProto) -> None:
    model = at_least(fused_detector, BF16.opset, "BF16")
    data = serialize(to_half(model, lower_precision_core(model), form=BF16).model)
    assert build_plan(data, "rtx", PlanOptions(compute_capabilities=RTX_CAPABILITIES["bf16"])).layers
    with pytest.raises(BuildFailed, match="b16"):  # so the plan's arithmetic is BF16
        build_plan(data, "rtx", PlanOptions(compute_capabilities=("7.5",)))
