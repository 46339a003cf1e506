from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from build_engine.errors import BuildError
from build_engine.fuse import fuse
from build_engine.fuse.verify import FusionMismatch, verify_fusion
from tests.build_engine.fuse.graphs import GraphBuilder, feeds

RNG = np.random.default_rng(11)


@pytest.fixture
def model() -> onnx.ModelProto:
    g = GraphBuilder(("n", 3, 9, 11))
    y = g.add("Conv", "x0", RNG.normal(size=(8, 3, 3, 3)), pads=[1, 1, 1, 1])
    norm = [RNG.uniform(0.5, 1.5, 8), RNG.normal(size=8), RNG.normal(size=8), RNG.uniform(0.3, 2, 8)]
    return g.model(g.add("Relu", g.add("BatchNormalization", y, *norm)))


def changed(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    other = onnx.ModelProto()
    other.CopyFrom(model)
    weight = max(other.graph.initializer, key=lambda tensor: len(tensor.dims))
    array = numpy_helper.to_array(weight).copy()
    array.flat[5] += by
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    return other


def test_a_fused_model_passes_with_its_errors(model: onnx.ModelProto) -> None:
    outcome = verify_fusion(model, fuse(model).model, [feeds(model, n=1), feeds(model, 1, n=2)])
    assert outcome.reference == "float64"
    assert outcome.inputs == 2
    (error,) = outcome.outputs
    assert 0 < error.fused <= error.bound
    assert outcome.to_dict()["outputs"][0]["name"] == error.name


def test_a_changed_weight_is_found(model: onnx.ModelProto) -> None:
    with pytest.raises(FusionMismatch, match="off by") as caught:
        verify_fusion(model, changed(fuse(model).model, 1e-4), [feeds(model, n=1)])
    assert isinstance(caught.value, BuildError)
    assert "\n  → " in str(caught.value)


def test_an_output_that_is_not_finite_is_found(model: onnx.ModelProto) -> None:
    with pytest.raises(FusionMismatch, match="off by inf"):
        verify_fusion(model, changed(fuse(model).model, float("nan")), [feeds(model, n=1)])


def test_no_inputs_is_an_error(model: onnx.ModelProto) -> None:
    with pytest.raises(BuildError, match="no inputs"):
        verify_fusion(model, model, [])


def top_k(weights: list[float], *, with_values: bool) -> onnx.ModelProto:
    g = GraphBuilder((1, 4))
    values, indices = g.add("TopK", g.add("Mul", "x0", weights), np.array([2]), outputs=2, axis=1)
    outputs = [values, indices] if with_values else [indices]
    return g.model(*outputs, shape=[1, 2], types={indices: onnx.TensorProto.INT64})


def test_indices_may_swap_between_equals() -> None:
    feed = {"x0": np.ones((1, 4), dtype=np.float32)}
    one, swapped = ([1.0, 1.0 + 5e-7, 0.5, 0.2], [1.0 + 5e-7, 1.0, 0.5, 0.2])
    outcome = verify_fusion(top_k(one, with_values=True), top_k(swapped, with_values=True), [feed])
    assert [error.disagreements for error in outcome.outputs] == [0, 2]


def test_indices_that_nothing_excuses_are_found() -> None:
    feed = {"x0": np.ones((1, 4), dtype=np.float32)}
    one, other = top_k([1.0, 0.9, 0.5, 0.2], with_values=False), top_k([0.2, 0.5, 0.9, 1.0], with_values=False)
    with pytest.raises(FusionMismatch, match="2 of 2 elements"):
        verify_fusion(one, other, [feed])
