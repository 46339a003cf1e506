from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.errors import BuildError
from build_engine.graph import bodies
from build_engine.load.onnx_file import load_onnx
from build_engine.session import Session


def conditional(rank_inside: int) -> onnx.ModelProto:
    """`y = x + 1` where `x` sums to more than nothing, else `x - 1`; the bodies say that `y` has so many axes."""

    def body(kind: str) -> onnx.GraphProto:
        told = helper.make_tensor_value_info(f"{kind}.y", TensorProto.FLOAT, [1] * rank_inside)
        node = helper.make_node(kind, ["x", "one"], [f"{kind}.y"], kind)
        return helper.make_graph([node], kind, [], [told])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], "sum", keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["more"], "more"),
        helper.make_node("If", ["more"], ["y"], "if", then_branch=body("Add"), else_branch=body("Sub")),
    ]
    constants = [
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("one", 1), ("zero", 0))
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_shapes_in_bodies_that_contradict_the_rest_are_worked_out_again(tmp_path: Path) -> None:
    model = conditional(rank_inside=1)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.save(model, tmp_path / "m.onnx")
    loaded, _ = load_onnx(tmp_path / "m.onnx", (), None)
    assert len(list(bodies(loaded.graph))) == 2
    for sign in (1, -1):
        x = np.full((3, 4), sign, np.float32)
        np.testing.assert_array_equal(Session(loaded).run({"x": x})["y"], x + sign)


def test_shapes_that_do_not_fit_outside_of_bodies_are_still_refused(tmp_path: Path) -> None:
    model = conditional(rank_inside=2)
    model.graph.node.append(helper.make_node("MatMul", ["x", "wrong"], ["z"], "matmul"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((5, 5), np.float32), "wrong"))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 5]))
    onnx.save(model, tmp_path / "m.onnx")
    with pytest.raises(BuildError, match="shapes do not fit"):
        load_onnx(tmp_path / "m.onnx", (), None)
