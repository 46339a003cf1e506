"""A few lines to write an ONNX graph with, for tests that need one node here and one there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from build_engine.fuse import FuseOptions, FuseResult, fuse
from build_engine.fuse.reference import float64_evaluator

# A cost model that merges wherever merging is exact: launches are all that counts.
EAGER = FuseOptions(ns_per_mac=0.0, ns_per_byte=0.0, ns_per_launch=1.0)


class GraphBuilder:
    """Adds nodes one at a time; constants are initializers named after their node."""

    def __init__(self, *input_shapes: Sequence[int | str], opset: int = 20, prefix: str = "") -> None:
        self.inputs = [
            helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, list(shape))
            for i, shape in enumerate(input_shapes)
        ]
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.opset = opset
        self.prefix = prefix

    def constant(self, value: npt.ArrayLike) -> str:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        name = f"{self.prefix}c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op_type: str, *operands: str | npt.ArrayLike, outputs: int = 1, **attributes: Any) -> Any:
        names = [operand if isinstance(operand, str) else self.constant(operand) for operand in operands]
        stem = f"{self.prefix}{op_type.lower()}{len(self.nodes)}"
        results = [stem if i == 0 else f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op_type, names, results, name=f"n_{stem}", **attributes))
        return results[0] if outputs == 1 else results

    def model(
        self, *outputs: str, shape: Sequence[int] | None = None, types: Mapping[str, int] | None = None
    ) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "graph",
            self.inputs,
            [
                helper.make_tensor_value_info(name, (types or {}).get(name, TensorProto.FLOAT), shape)
                for name in outputs
            ],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model)
        onnx.checker.check_model(inferred, full_check=True)
        return inferred


def feeds(model: onnx.ModelProto, seed: int = 0, **sizes: int) -> dict[str, npt.NDArray[np.float32]]:
    """A random input; ``sizes`` gives symbolic dimensions theirs."""
    generator = np.random.default_rng(seed)
    constants = {tensor.name for tensor in model.graph.initializer}
    return {
        value.name: generator.normal(
            size=[dim.dim_value or sizes[dim.dim_param] for dim in value.type.tensor_type.shape.dim]
        ).astype(np.float32)
        for value in model.graph.input
        if value.name not in constants
    }


def assert_equal(before: onnx.ModelProto, after: onnx.ModelProto, **sizes: int) -> None:
    """Both models in float64 arithmetic; the fused weights were rounded to float32 once, hence 1e-5."""
    feed = {name: x.astype(np.float64) for name, x in feeds(before, **sizes).items()}
    expected = float64_evaluator(before).run(None, feed)
    actual = float64_evaluator(after).run(None, feed)
    for one, two in zip(expected, actual, strict=True):
        assert np.asarray(one).shape == np.asarray(two).shape
        scale = max(1.0, float(np.max(np.abs(one), initial=0.0)))
        np.testing.assert_allclose(two, one, rtol=0, atol=1e-5 * scale)


def fused(model: onnx.ModelProto, options: FuseOptions = EAGER, **sizes: int) -> FuseResult:
    """Fuses, and checks that the outcome computes the same and that the input is untouched."""
    untouched = model.SerializeToString(deterministic=True)
    result = fuse(model, options)
    assert model.SerializeToString(deterministic=True) == untouched
    onnx.checker.check_model(result.model, full_check=True)
    assert_equal(model, result.model, **sizes)
    return result


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
