"""Last layers on integers, their outputs in float."""

from __future__ import annotations

import numpy as np
import onnx

from build_engine.compile.cpu import kernels
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Silent
from build_engine.quantize import CPU_INT8, TENSORRT_INT8, Choice, Quantizer, lower_precision_core
from build_engine.quantize.heads import pointwise_heads
from build_engine.quantize.outputs import relative_error
from build_engine.session import Session


def quantizer(model: onnx.ModelProto) -> Quantizer:
    samples = [random_inputs(tensor_specs(feeds(model)), 1, seed) for seed in range(8)]
    return Quantizer(model, lower_precision_core(model), samples, [CPU_INT8, TENSORRT_INT8], Silent())


def test_pointwise_heads_run_on_integers_and_are_not_rounded(fused_detector: onnx.ModelProto) -> None:
    tried = quantizer(fused_detector)
    heads = lower_precision_core(fused_detector).last
    assert len(heads) == 2
    choice = Choice("mse", weights="corrected")
    assert set(heads) < set(tried.integer_nodes(choice, CPU_INT8))
    assert not set(heads) & set(tried.integer_nodes(choice, TENSORRT_INT8))
    frame = random_inputs(tensor_specs(feeds(fused_detector)), 2, 99)
    inside, outside = tried.graph(choice, CPU_INT8), tried.graph(choice.without(frozenset(heads)), CPU_INT8)
    assert kernels(serialize(inside))["MatMulIntegerToFloat"] == 2
    assert kernels(serialize(outside))["MatMulIntegerToFloat"] == 0
    wanted = Session(outside).run(frame)["heat"]
    found = Session(inside).run(frame)["heat"]
    assert 0 < relative_error(wanted, found) < 0.01
    assert np.unique(found).size > 256


def test_a_head_behind_a_float_layer_stays_in_float(fused_detector: onnx.ModelProto) -> None:
    core = lower_precision_core(fused_detector)
    tried = quantizer(fused_detector)
    nodes = tried.integer_nodes(Choice("max", float_units=frozenset({core.weighted[-1]})), CPU_INT8)
    assert not set(core.last) & set(nodes)
    assert pointwise_heads(fused_detector, core, ()) == ()
