"""Bodies of loops and conditionals are fused like any graph, and what they read from outside stays alive."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from build_engine.fuse import fuse
from tests.build_engine.fuse.graphs import EAGER, GraphBuilder, assert_equal, operators

RNG = np.random.default_rng(16)
IMAGE = [1, 4, 5, 7]


def conv(g: GraphBuilder, x: str) -> str:
    return str(g.add("Conv", x, RNG.normal(size=(4, 4, 3, 3)) * 0.2, pads=[1] * 4))


def norm(g: GraphBuilder, x: str) -> str:
    stats = [RNG.uniform(0.5, 1.5, 4), RNG.normal(size=4), RNG.normal(size=4), RNG.uniform(0.3, 2, 4)]
    return str(g.add("BatchNormalization", x, *stats))


def info(name: str, shape: list[int], dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def body_operators(model: onnx.ModelProto) -> list[str]:
    bodies = [a.g for n in model.graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH]
    return [node.op_type for body in bodies for node in body.node]


def test_a_loop_that_reads_the_middle_of_a_linear_chain_outside() -> None:
    g = GraphBuilder(tuple(IMAGE))
    first = conv(g, "x0")
    outside = norm(g, first)  # what the body reads lies between these two
    inner = GraphBuilder(prefix="loop_")
    state = norm(inner, conv(inner, "state"))
    state = inner.add("Tanh", inner.add("Add", state, first))
    inner.nodes.append(helper.make_node("Identity", ["go"], ["go_on"]))
    body = helper.make_graph(
        inner.nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("state", IMAGE)],
        [info("go_on", [], TensorProto.BOOL), info(state, IMAGE)],
        inner.initializers,
    )
    y = g.add("Loop", np.array(3), np.array(True), outside, body=body)
    model = g.model(y, shape=IMAGE)
    result = fuse(model, EAGER)
    assert operators(result.model) == ["Conv", "Mul", "Add", "Loop"]  # the body reads what the Conv computes
    assert body_operators(result.model).count("BatchNormalization") == 0
    assert_equal(model, result.model)


def test_a_scan() -> None:
    g = GraphBuilder((3, *IMAGE))
    inner = GraphBuilder(prefix="scan_")
    y = inner.add("Relu", norm(inner, conv(inner, "frame")))
    inner.nodes.append(helper.make_node("Add", ["sum", y], ["next_sum"]))
    inner.nodes.append(helper.make_node("Identity", [y], ["kept"]))
    body = helper.make_graph(
        inner.nodes,
        "body",
        [info("sum", IMAGE), info("frame", IMAGE)],
        [info("next_sum", IMAGE), info("kept", IMAGE)],
        inner.initializers,
    )
    start = g.constant(np.zeros(IMAGE))
    last, frames = g.add("Scan", start, "x0", outputs=2, body=body, num_scan_inputs=1)
    model = g.model(last, frames, shape=None)
    result = fuse(model)
    assert body_operators(result.model).count("BatchNormalization") == 0
    assert_equal(model, result.model)


def test_functions_of_the_model_are_inlined() -> None:
    nodes = [
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Mul", ["b", "s"], ["c"]),
    ]
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Block", ["a", "w", "s"], ["c"], nodes, opsets[:1])
    g = GraphBuilder(tuple(IMAGE))
    weight, scale = g.constant(RNG.normal(size=(4, 4, 1, 1))), g.constant(RNG.normal(size=(4, 1, 1)))
    g.nodes.append(helper.make_node("Block", ["x0", weight, scale], ["z"], domain="local", name="same"))
    g.nodes.append(helper.make_node("Block", ["z", weight, scale], ["y"], domain="local", name="same"))
    graph = helper.make_graph(g.nodes, "graph", g.inputs, [info("y", IMAGE)], g.initializers)
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8)
    result = fuse(model, EAGER)
    assert operators(result.model) == ["Conv"]
    assert_equal(model, result.model)


def test_nodes_that_share_a_name() -> None:
    g = GraphBuilder(tuple(IMAGE))
    y = norm(g, conv(g, g.add("Relu", norm(g, conv(g, "x0")))))
    for node in g.nodes:
        node.name = "same"
    model = g.model(y)
    result = fuse(model)
    assert operators(result.model) == ["Conv", "Relu", "Conv"]
    assert_equal(model, result.model)


def test_operators_of_other_domains_are_named() -> None:
    g = GraphBuilder(tuple(IMAGE))
    g.nodes.append(helper.make_node("Blur", [norm(g, conv(g, "x0"))], ["z"], domain="com.example", name="theirs"))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)]
    y = norm(g, conv(g, "z"))
    graph = helper.make_graph(g.nodes, "graph", g.inputs, [info(y, IMAGE)], g.initializers)
    graph.value_info.append(info("z", IMAGE))
    result = fuse(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    assert operators(result.model) == ["Conv", "Blur", "Conv"]
    line = next(line for line in result.report.kept if line.name == "theirs")
    assert line.reason == "operator"
    assert "com.example::Blur" in line.sentence
