from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from build_engine.compile.tensorrt import RTX_CAPABILITIES
from build_engine.graph import constants, feeds, opset_of, random_inputs, serialize, tensor_specs
from build_engine.progress import Silent
from build_engine.quantize import PLAIN, TENSORRT_FP8, TENSORRT_INT8, Quantizer, emulated, lower_precision_core
from build_engine.quantize.fp8 import LARGEST, OPSET
from build_engine.quantize.opset import at_least
from build_engine.session import Session
from engine.errors import BuildFailed
from engine.reference import l2_agreement
from engine.tensorrt.plan import PlanOptions, build_plan

FLOAT8 = helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN)


@pytest.fixture(scope="module")
def source(fused_detector: onnx.ModelProto) -> onnx.ModelProto:
    return at_least(fused_detector, OPSET, "FP8")


@pytest.fixture(scope="module")
def quantizer(source: onnx.ModelProto) -> Quantizer:
    samples = [random_inputs(tensor_specs(feeds(source)), 1, seed) for seed in range(8)]
    return Quantizer(source, lower_precision_core(source), samples, [TENSORRT_FP8, TENSORRT_INT8], Silent())


def test_the_largest_value_becomes_the_largest_float(source: onnx.ModelProto, quantizer: Quantizer) -> None:
    model = quantizer.graph(PLAIN, TENSORRT_FP8)
    fixed, floats = constants(model), constants(source)
    stored = {name: array for name, array in fixed.items() if array.dtype == FLOAT8 and array.ndim == 4}
    assert len(stored) == len(quantizer.core.weighted)
    for name, array in stored.items():
        rows = np.abs(array.astype(np.float32)).max(axis=(1, 2, 3))
        np.testing.assert_array_equal(rows, LARGEST)
        weight = floats[name.removesuffix("_quantized")]
        scale = fixed[name.replace("_quantized", "_scale")].reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(array.astype(np.float32) * scale, weight, rtol=1 / 15, atol=float(scale.max()))
    onnx.checker.check_model(model)


def test_pairs_stand_where_int8s_do(quantizer: Quantizer) -> None:
    def pairs(model: onnx.ModelProto) -> list[tuple[str, str]]:
        return sorted((node.op_type, node.name) for node in model.graph.node if node.op_type.endswith("eLinear"))

    assert pairs(quantizer.graph(PLAIN, TENSORRT_FP8)) == pairs(quantizer.graph(PLAIN, TENSORRT_INT8))


def test_it_answers_roughly_what_float_answers(source: onnx.ModelProto, quantizer: Quantizer) -> None:
    frame = random_inputs(tensor_specs(feeds(source)), 1, 99)
    found = Session(emulated(quantizer.graph(PLAIN, TENSORRT_FP8))).run(frame)["heat"]
    assert 0.9 < l2_agreement(found, Session(source).run(frame)["heat"]) < 1


def test_tensorrt_compiles_it_for_the_gpus_that_have_fp8_alone(quantizer: Quantizer) -> None:
    data = serialize(quantizer.graph(PLAIN, TENSORRT_FP8))
    assert build_plan(data, "rtx", PlanOptions(compute_capabilities=RTX_CAPABILITIES["fp8"])).layers
    with pytest.raises(BuildFailed, match="fp8_e4m3"):  # so the plan's arithmetic is FP8
        build_plan(data, "rtx", PlanOptions(compute_capabilities=("8.6",)))


def test_the_operator_set_is_raised_without_touching_the_rest(fused_detector: onnx.ModelProto) -> None:
    raised = at_least(fused_detector, 22, "BF16")
    assert opset_of(raised) == 22
    assert [node.name for node in raised.graph.node] == [node.name for node in fused_detector.graph.node]
    assert serialize(raised) == serialize(at_least(fused_detector, 22, "BF16"))
    assert at_least(raised, 19, "FP8") is raised
