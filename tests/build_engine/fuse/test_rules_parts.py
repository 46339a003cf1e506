"""Rules on parts of the channels: splits, slices, concatenations and grouped convolutions."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.fuse import FuseOptions
from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators
from tests.build_engine.fuse.rule_cases import conv, norm


def groups_of(model: onnx.ModelProto) -> list[int]:
    """Groups of every convolution in a model."""
    return [
        int(attribute.i)
        for node in model.graph.node
        if node.op_type == "Conv"
        for attribute in node.attribute
        if attribute.name == "group"
    ]


def split(g: GraphBuilder, *sizes: int) -> list[str]:
    names: list[str] = g.add("Split", "x0", np.array(sizes), axis=1, outputs=len(sizes))
    return names


def test_depthwise_convolutions_of_parts_are_one_depthwise_convolution() -> None:
    g = GraphBuilder((1, 32, 14, 14))
    made = [conv(g, x, n, n, 3, group=n, pads=[1] * 4) for x, n in zip(split(g, 8, 8, 16), (8, 8, 16), strict=True)]
    y = g.add("BatchNormalization", g.add("Concat", *made, axis=1), *norm(32))
    model = fused(g.model(y), FuseOptions()).model
    assert (operators(model), groups_of(model)) == (["Conv"], [32])


def test_strips_of_parts_and_a_part_that_is_passed_on_are_one_depthwise_convolution(g: GraphBuilder) -> None:
    """As in InceptionNeXt, arXiv 2303.16900; whether the larger window is worth it is the cost's to say."""
    parts = split(g, 1, 2, 1)
    high = conv(g, parts[0], 1, 1, (5, 1), group=1, pads=[2, 0, 2, 0])
    wide = conv(g, parts[1], 2, 2, (1, 3), group=2, pads=[0, 1, 0, 1])
    model = fused(g.model(g.add("Concat", high, wide, parts[2], axis=1)), n=2).model
    assert (operators(model), groups_of(model)) == (["Conv"], [4])


def test_groups_of_parts_become_equal_where_the_sizes_allow(g: GraphBuilder) -> None:
    """A dense part and one that is passed on, as in FasterNet."""
    first, rest = split(g, 2, 2)
    model = fused(g.model(g.add("Concat", conv(g, first, 2, 2), rest_cropped(g, rest), axis=1)), n=2).model
    assert (operators(model), groups_of(model)) == (["Conv"], [2])


def rest_cropped(g: GraphBuilder, x: str) -> str:
    name: str = g.add("Slice", x, np.array([1, 1]), np.array([-1, -1]), np.array([2, 3]))
    return name


@pytest.mark.parametrize("case", ["order", "size", "multiplier"])
def test_beside_cases_1_and_2_other_parts_are_made_dense(g: GraphBuilder, case: str) -> None:
    sizes = {"order": (2, 2), "size": (3, 1), "multiplier": (2, 2)}[case]
    first, second = split(g, *sizes)
    one = conv(g, first, sizes[0], 4 if case == "multiplier" else sizes[0])
    two = conv(g, second, sizes[1], sizes[1], group=sizes[1])
    made = [two, one] if case == "order" else [one, two]
    model = fused(g.model(g.add("Concat", *made, axis=1)), n=2).model
    assert (operators(model), groups_of(model)) == (["Conv"], [1])


def test_whole_groups_of_a_grouped_convolution_read_a_slice_of_the_source() -> None:
    g = GraphBuilder((1, 128, 28, 28))
    y = conv(g, "x0", 128, 128, group=4)
    y = g.add("Slice", y, np.array([32]), np.array([96]), np.array([1]))
    model = fused(g.model(g.add("BatchNormalization", y, *norm(64))), FuseOptions()).model
    assert (operators(model), groups_of(model)) == (["Slice", "Conv"], [2])


def test_narrowed_case_2_half_a_group_is_made_dense(g: GraphBuilder) -> None:
    y = g.add("Slice", conv(g, "x0", 4, 4, group=2), np.array([1]), np.array([3]), np.array([1]))
    model = fused(g.model(y), n=2).model
    assert (operators(model), groups_of(model)) == (["Conv"], [1])


def test_concatenated_and_split_again_is_the_part() -> None:
    g = GraphBuilder((2, 4, 7, 9), (2, 4, 7, 9))
    joined = g.add("Concat", conv(g, "x0", 4, 4, group=2), conv(g, "x1", 4, 4, group=4), axis=1)
    model = fused(g.model(g.add("Slice", joined, np.array([4]), np.array([8]), np.array([1])))).model
    assert (operators(model), groups_of(model)) == (["Conv"], [4])
    assert model.graph.node[0].input[0] == "x1"


@pytest.mark.parametrize("size", [8, 9])
def test_padding_is_even_where_the_stride_stops_short_of_its_end(size: int) -> None:
    g = GraphBuilder((1, 4, size, size))
    y = g.add("BatchNormalization", conv(g, "x0", 4, 6, strides=[2, 2], pads=[1, 1, 1, 1]), *norm(6))
    (node,) = (node for node in fused(g.model(y), n=1).model.graph.node if node.op_type == "Conv")
    assert [list(a.ints) for a in node.attribute if a.name == "pads"] == [[1, 1, 1, 1]]


def test_padding_stays_uneven_where_the_output_would_grow() -> None:
    g = GraphBuilder((1, 4, 9, 9))
    y = g.add("BatchNormalization", conv(g, "x0", 4, 6, strides=[2, 2], pads=[1, 1, 0, 0]), *norm(6))
    (node,) = (node for node in fused(g.model(y), n=1).model.graph.node if node.op_type == "Conv")
    assert [list(a.ints) for a in node.attribute if a.name == "pads"] == [[1, 1, 0, 0]]
