"""Models as they come: open sizes, old operator sets, external data, subgraphs; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from build_engine.errors import BuildError
from build_engine.fuse import count, fuse
from build_engine.fuse.verify import verify_fusion
from tests.build_engine.fuse.exporting import exported, randomized
from tests.build_engine.fuse.families import FAMILIES
from tests.build_engine.fuse.graphs import GraphBuilder, assert_equal, fused, operators

RNG = np.random.default_rng(5)


def block(opset: int = 20, *shape: int | str) -> onnx.ModelProto:
    g = GraphBuilder(shape or ("n", 4, "h", "w"), opset=opset)
    y = g.add("Conv", "x0", RNG.normal(size=(4, 4, 3, 3)), pads=[1, 1, 1, 1])
    norm = [RNG.uniform(0.5, 1.5, 4), RNG.normal(size=4), RNG.normal(size=4), RNG.uniform(0.3, 2, 4)]
    y = g.add("Add", g.add("BatchNormalization", y, *norm), "x0")
    return g.model(g.add("Relu", y))


@pytest.mark.parametrize("opset", [11, 13, 17, 22])
def test_operator_sets(opset: int) -> None:
    model = block(opset, 1, 4, 5, 7)
    assert operators(fused(model).model) == ["Conv", "Relu"]


@pytest.mark.parametrize("exporter", ["dynamo", "torchscript"])
@pytest.mark.parametrize("name", ["repvgg", "acnet"])
def test_open_batch_height_and_width(name: str, exporter: str) -> None:
    family = FAMILIES[name]
    model = exported(randomized(family.make()), family.input_shape, exporter, dynamic=(0, 2, 3))
    result = fuse(model)
    assert count(result.model).convolutions <= family.deploy_convolutions
    for shape in ((1, 5, 7), (3, 8, 6)):
        x = RNG.normal(size=(shape[0], family.input_shape[1], *shape[1:])).astype(np.float32)
        verify_fusion(model, result.model, [{"x": x}])


def test_sizes_that_are_open_and_nameless() -> None:
    model = block()
    for dim in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[dim].ClearField("dim_param")
    del model.graph.value_info[:]
    assert operators(fuse(model).model) == ["Conv", "Relu"]


def test_weights_as_constant_nodes() -> None:
    model = block(20, 1, 4, 5, 7)
    constants = [
        helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in list(model.graph.initializer)
    ]
    nodes = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend([*constants, *nodes])
    assert operators(fused(model).model) == ["Conv", "Relu"]


def test_old_models_list_their_weights_as_inputs() -> None:
    model = block(11, 1, 4, 5, 7)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    result = fuse(model).model
    assert operators(result) == ["Conv", "Relu"]
    assert [value.name for value in result.graph.input] == ["x0"]


def test_external_data(tmp_path: Path) -> None:
    model = block(20, 1, 4, 5, 7)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    loaded = onnx.load(tmp_path / "m.onnx")
    assert_equal(loaded, fuse(loaded).model)


def test_what_computes_shapes_is_folded() -> None:
    g = GraphBuilder((1, 4, 5, 7))
    shape = g.add("Concat", g.add("Shape", "x0", start=0, end=1), np.array([4, 35]), axis=0)
    y = g.add("Reshape", g.add("Conv", "x0", RNG.normal(size=(4, 4, 1, 1))), shape)
    assert operators(fused(g.model(y)).model) == ["Conv", "Reshape"]


def test_a_half_precision_model_stays_half() -> None:
    model = block(20, 1, 4, 5, 7)
    for tensor in list(model.graph.initializer):
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    result = fuse(model).model
    assert operators(result) == ["Conv", "Relu"]
    assert {tensor.data_type for tensor in result.graph.initializer} == {TensorProto.FLOAT16}


def test_the_bodies_of_conditionals_are_fused() -> None:
    g = GraphBuilder((1, 4, 5, 7))
    inner = GraphBuilder(prefix="inner_")
    y = inner.add("Conv", "x0", RNG.normal(size=(4, 4, 3, 3)), pads=[1, 1, 1, 1])
    y = inner.add("Add", y, "x0")
    float_type = helper.make_tensor_value_info(y, TensorProto.FLOAT, [1, 4, 5, 7])
    body = helper.make_graph(inner.nodes, "then", [], [float_type], inner.initializers)
    other = helper.make_graph(
        [helper.make_node("Neg", ["x0"], ["neg"])],
        "else",
        [],
        [helper.make_tensor_value_info("neg", TensorProto.FLOAT, [1, 4, 5, 7])],
    )
    flag = g.add("Greater", g.add("ReduceSum", "x0", keepdims=0), np.float32(0))
    out = g.add("If", flag, then_branch=body, else_branch=other)
    model = g.model(out, shape=[1, 4, 5, 7])
    result = fuse(model)
    assert [region.rules for region in result.report.regions] == [("Conv", "Add")]
    assert_equal(model, result.model)


def test_operators_of_unknown_domains_are_left_alone() -> None:
    g = GraphBuilder((1, 4, 5, 7))
    y = g.add("Conv", "x0", RNG.normal(size=(4, 4, 1, 1)))
    g.nodes.append(helper.make_node("Conv", [y], ["z"], domain="com.example", name="theirs"))
    graph = helper.make_graph(
        g.nodes,
        "graph",
        g.inputs,
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 5, 7])],
        g.initializers,
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    assert [(node.op_type, node.domain) for node in fuse(model).model.graph.node] == [
        ("Conv", ""),
        ("Conv", "com.example"),
    ]


def test_dead_branches_and_zero_kernels_disappear() -> None:
    g = GraphBuilder((1, 4, 5, 7), (1, 4, 5, 7))
    g.add("Conv", "x0", RNG.normal(size=(4, 4, 1, 1)))
    zero = g.add("Conv", "x1", np.zeros((4, 4, 3, 3)), pads=[1, 1, 1, 1])
    y = g.add("Add", g.add("Conv", "x0", RNG.normal(size=(4, 4, 3, 3)), pads=[1, 1, 1, 1]), zero)
    assert operators(fused(g.model(g.add("Mul", y, np.float32(2)))).model) == ["Conv"]


def test_an_invalid_model_is_refused() -> None:
    model = block()
    model.graph.node[0].op_type = "Convolute"
    with pytest.raises(BuildError, match="not valid ONNX"):
        fuse(model)


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    model = block()
    weight = model.graph.initializer[0]
    array = numpy_helper.to_array(weight).copy()
    array[1, 2, 0, 0] = np.nan
    weight.CopyFrom(numpy_helper.from_array(array, weight.name))
    with pytest.raises(BuildError, match=rf"'{weight.name}' \[4, 4, 3, 3\] holds nan at \[1, 2, 0, 0\]"):
        fuse(model)


def test_progress_and_the_report_speak() -> None:
    steps: list[str] = []
    result = fuse(block(), progress=lambda step, done, total: steps.append(f"{step} {done}/{total}"))
    assert steps[0] == "preparing 0/2"
    assert steps[-1] == "done 2/2"
    assert "1 regions fused" in str(result.report)
    assert result.report.to_dict()["regions"][0]["rules"] == ("Conv", "BatchNormalization", "Add")


def test_the_source_of_a_fused_node_is_kept_in_its_metadata() -> None:
    model = exported(randomized(FAMILIES["repvgg"].make()), FAMILIES["repvgg"].input_shape)
    result = fuse(model)
    props = {p.key: p.value for p in result.model.graph.node[0].metadata_props}
    assert {"0.dense.1", "0.point.1"} <= set(props["monocoque.fused_modules"].split(","))
    assert {"0.dense.1", "0.point.1"} <= set(result.report.regions[0].modules)
    assert {line.reason for line in result.report.kept} == {"nonlinearity"}


@pytest.mark.parametrize("name", ["repvgg", "dbb", "focus"])
def test_fusing_again_changes_nothing(name: str) -> None:
    once = fuse(exported(randomized(FAMILIES[name].make()), FAMILIES[name].input_shape)).model
    again = fuse(once)
    assert again.report.regions == ()
    assert operators(again.model) == operators(once)


def test_a_chain_of_four_hundred_linear_layers() -> None:
    g = GraphBuilder((1, 2, 3, 3))
    y = "x0"
    for _ in range(400):
        y = g.add("Conv", y, RNG.normal(size=(2, 2, 1, 1)) * 0.7)
    assert len(operators(fused(g.model(y)).model)) <= 4


def test_operator_sets_before_11_are_refused_with_a_remedy() -> None:
    model = block(20)
    model.opset_import[0].version = 9
    with pytest.raises(BuildError, match="operator set 9") as caught:
        fuse(model)
    assert "convert_version" in str(caught.value)


def test_equal_constants_are_stored_once() -> None:
    g = GraphBuilder((1, 4, 5, 7), (1, 4, 5, 7))
    same = RNG.normal(size=(4, 4, 3, 3))
    y = [g.add("Relu", g.add("Conv", x, same)) for x in ("x0", "x1")]
    assert len(fused(g.model(*y)).model.graph.initializer) == 1


@pytest.mark.parametrize("name", ["dbb", "ecb", "repmixer", "shuffle"])
def test_an_open_batch(name: str) -> None:
    family = FAMILIES[name]
    model = exported(randomized(family.make()), family.input_shape, dynamic=(0,))
    result = fuse(model)
    assert count(result.model).convolutions <= family.deploy_convolutions
    x = RNG.normal(size=(3, *family.input_shape[1:])).astype(np.float32)
    verify_fusion(model, result.model, [{"x": x}])


@pytest.mark.parametrize("name", ["dbb", "ecb"])
def test_border_writes_at_positions_that_follow_the_batch(name: str) -> None:
    family = FAMILIES[name]
    model = exported(randomized(family.make()), family.input_shape, "torchscript", dynamic=(0,))
    result = fuse(model)
    assert count(result.model).convolutions <= family.deploy_convolutions
    assert set(operators(result.model)) <= {"Conv", "Relu", "PRelu"}
    # The trace has its own batch written into the borders: for others the unfused graph does not even run.
    x = RNG.normal(size=family.input_shape).astype(np.float32)
    verify_fusion(model, result.model, [{"x": x}])
