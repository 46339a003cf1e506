"""What cannot be fused is refused by name, with what to do next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.errors import BuildError
from build_engine.fuse import fuse
from tests.build_engine.fuse.graphs import GraphBuilder, assert_equal, operators

RNG = np.random.default_rng(6)


def small() -> onnx.ModelProto:
    g = GraphBuilder((1, 4, 5, 7))
    y = g.add("Mul", g.add("Conv", "x0", RNG.normal(size=(4, 4, 3, 3)), pads=[1] * 4), RNG.normal(size=(4, 1, 1)))
    return g.model(g.add("Add", y, "x0"))


def refusal(model: onnx.ModelProto) -> str:
    with pytest.raises(BuildError) as caught:
        fuse(model)
    assert caught.value.remedy
    return caught.value.message


def test_shapes_that_contradict_each_other() -> None:
    model = small()
    model.graph.initializer[0].dims[1] = 2
    model.graph.initializer[0].dims[0] = 8
    del model.graph.value_info[:]
    assert "contradict" in refusal(model)


def test_types_that_contradict_each_other() -> None:
    model = small()
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "contradict" in refusal(model)


def test_a_cycle_and_a_tensor_nobody_makes() -> None:
    model = small()
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    assert "not valid ONNX" in refusal(model)


def test_two_nodes_that_make_the_same_tensor() -> None:
    model = small()
    model.graph.node[1].output[0] = model.graph.node[0].output[0]
    assert "not valid ONNX" in refusal(model)


@pytest.mark.parametrize("index", [0, 1])
def test_not_a_number_wherever_it_is(index: int) -> None:
    model = small()
    weight = model.graph.initializer[index]
    array = numpy_helper.to_array(weight).copy()
    array.flat[3] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    assert f"weight '{weight.name}'" in refusal(model)


def test_infinity_is_refused_as_a_weight_and_kept_as_a_constant_of_a_mask() -> None:
    for op, refused in (("Conv", True), ("Max", False)):
        g = GraphBuilder((1, 1, 3, 3))
        constant = np.full((1, 1, 1, 1), -np.inf)
        model = g.model(g.add(op, "x0", constant))
        if refused:
            assert "holds -inf at [0, 0, 0, 0]" in refusal(model)
        else:
            assert operators(fuse(model).model) == ["Max"]


def test_not_a_number_in_the_body_of_a_conditional() -> None:
    branches = []
    for value in (1.0, np.nan):
        inner = GraphBuilder(prefix=f"b{len(branches)}_")
        y = inner.add("Mul", "x0", np.full((4, 1, 1), value))
        info = helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 4, 5, 7])
        branches.append(helper.make_graph(inner.nodes, "body", [], [info], inner.initializers))
    g = GraphBuilder((1, 4, 5, 7))
    flag = g.add("Greater", g.add("ReduceSum", "x0", keepdims=0), np.float32(0))
    out = g.add("If", flag, then_branch=branches[0], else_branch=branches[1])
    assert "weight 'b1_c0'" in refusal(g.model(out, shape=[1, 4, 5, 7]))


def test_external_data_that_is_not_there(tmp_path: Path) -> None:
    onnx.save(small(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    assert "lies outside the model and cannot be read" in refusal(model)


@pytest.mark.parametrize("linear", [True, False])
def test_sparse_weights_are_written_out(linear: bool) -> None:
    dense = np.zeros((4, 4, 1, 1), dtype=np.float32)
    dense[1, 2], dense[3, 0] = 2.0, -1.0
    where = np.flatnonzero(dense) if linear else np.argwhere(dense)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[dense != 0], "w"), numpy_helper.from_array(where, "i"), dense.shape
    )
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, 5, 7]) for name in "xy"]
    nodes = [helper.make_node("Conv", ["x", "w"], ["z"]), helper.make_node("Neg", ["z"], ["y"])]
    graph = helper.make_graph(nodes, "graph", value[:1], value[1:], sparse_initializer=[sparse])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    result = fuse(model).model
    assert operators(result) == ["Conv"]
    graph.initializer.append(numpy_helper.from_array(dense, "w"))
    del graph.sparse_initializer[:]
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=8)
    assert_equal(model, result)
