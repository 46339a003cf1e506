"""Each rule on a node or two: what it merges, and each numbered condition under which it must not."""

from __future__ import annotations

import numpy as np
import pytest

from build_engine.fuse import FuseOptions, fuse
from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators
from tests.build_engine.fuse.rule_cases import RNG, conv, norm, result_of, weight


def test_batch_norm_after_a_convolution(g: GraphBuilder) -> None:
    y = g.add("BatchNormalization", conv(g, "x0", 4, 6), *norm(6))
    assert result_of(g, y) == ["Conv"]


def test_batch_norm_case_1_training_mode_stays(g: GraphBuilder) -> None:
    y = g.add("BatchNormalization", conv(g, "x0", 4, 6), *norm(6), outputs=3, training_mode=1)
    g2 = g.model(y[0])
    assert operators(fuse(g2).model) == ["Conv", "BatchNormalization"]


def test_batch_norm_before_an_unpadded_convolution(g: GraphBuilder) -> None:
    y = conv(g, g.add("BatchNormalization", "x0", *norm(4)), 4, 6)
    assert result_of(g, y) == ["Conv"]


def test_batch_norm_before_a_padded_convolution_is_a_scale_and_a_shift_apart(g: GraphBuilder) -> None:
    y = conv(g, g.add("BatchNormalization", "x0", *norm(4)), 4, 6, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Mul", "Add", "Conv"]


def test_scale_without_shift_before_a_padded_convolution(g: GraphBuilder) -> None:
    y = conv(g, g.add("Mul", "x0", weight(4, 1, 1)), 4, 6, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv"]


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_constants_that_differ_between_channels_only(g: GraphBuilder, op: str, shape: tuple[int, ...]) -> None:
    y = g.add(op, conv(g, "x0", 4, 6), RNG.uniform(0.5, 1, shape))
    assert result_of(g, y) == ["Conv"]


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub", "Div"])
def test_per_channel_case_1_a_rank_1_constant_meets_the_width(g: GraphBuilder, op: str) -> None:
    y = g.add(op, conv(g, "x0", 4, 7), RNG.uniform(0.5, 1, 7))
    assert result_of(g, y) == ["Conv", op]


def test_per_channel_case_1_a_spatial_constant_stays(g: GraphBuilder) -> None:
    y = g.add("Add", conv(g, "x0", 4, 6), weight(6, 5, 7))
    assert result_of(g, y) == ["Conv", "Add"]


def test_per_channel_case_1_a_spatial_constant_that_repeats_one_value_merges() -> None:
    g = GraphBuilder((2, 4, 7, 9))
    y = g.add("Add", conv(g, "x0", 4, 6), np.broadcast_to(weight(6, 1, 1), (6, 5, 7)))
    assert result_of(g, y) == ["Conv"]


def test_per_channel_case_2_a_constant_that_makes_the_tensor_larger_stays() -> None:
    g = GraphBuilder((2, 4, 7, 9))
    y = g.add("Mul", conv(g, "x0", 4, 1, 3), weight(5, 1, 1))
    assert result_of(g, y) == ["Conv", "Mul"]


def test_a_constant_minus_a_convolution(g: GraphBuilder) -> None:
    y = g.add("Neg", g.add("Sub", weight(6, 1, 1), conv(g, "x0", 4, 6)))
    assert result_of(g, y) == ["Conv"]


def test_branches_of_different_kernels_are_aligned_by_padding(g: GraphBuilder) -> None:
    branches = [
        conv(g, "x0", 4, 6, 3, pads=[1, 1, 1, 1]),
        conv(g, "x0", 4, 6, 1),
        conv(g, "x0", 4, 6, (1, 5), pads=[0, 2, 0, 2]),
        conv(g, "x0", 4, 6, 2, pads=[0, 1, 1, 0]),
        conv(g, "x0", 4, 6, 3, pads=[2, 2, 2, 2], dilations=[2, 2]),
        conv(g, "x0", 4, 6, 3, pads=[1, 1, 1, 1], group=2),
    ]
    assert result_of(g, g.add("Sum", *branches)) == ["Conv"]


def test_branches_of_equal_size_and_different_padding_become_one_larger_kernel(g: GraphBuilder) -> None:
    y = g.add("Add", conv(g, "x0", 4, 6, 3, pads=[2, 0, 0, 2]), conv(g, "x0", 4, 6, 3, pads=[0, 2, 2, 0]))
    model = fused(g.model(y), n=2).model
    assert operators(model) == ["Conv"]
    assert [list(a.ints) for a in model.graph.node[0].attribute if a.name == "kernel_shape"] == [[5, 5]]


def test_union_case_1_different_strides_stay() -> None:
    g = GraphBuilder((2, 4, 1, 1))
    y = g.add("Add", conv(g, "x0", 4, 6, 1, strides=[2, 2]), conv(g, "x0", 4, 6, 1))
    assert result_of(g, y) == ["Conv", "Conv", "Add"]


def test_strided_branches(g: GraphBuilder) -> None:
    y = g.add("Add", conv(g, "x0", 4, 6, 3, strides=[2, 2], pads=[1, 1, 1, 1]), conv(g, "x0", 4, 6, 1, strides=[2, 2]))
    assert result_of(g, y) == ["Conv"]


def test_sum_case_2_a_broadcast_sum_stays(g: GraphBuilder) -> None:
    g = GraphBuilder((2, 4, 3, 3))
    y = g.add("Add", conv(g, "x0", 4, 6, 3), conv(g, "x0", 4, 6, 1))
    assert result_of(g, y) == ["Conv", "Conv", "Add"]


def test_mean_of_branches(g: GraphBuilder) -> None:
    y = g.add("Mean", conv(g, "x0", 4, 4, 3, pads=[1, 1, 1, 1]), "x0", conv(g, "x0", 4, 4, 1))
    assert result_of(g, y) == ["Conv"]


def test_a_shortcut_and_its_scale(g: GraphBuilder) -> None:
    branch = g.add("Mul", weight(4, 1, 1), conv(g, "x0", 4, 4, 3, pads=[1, 1, 1, 1]))
    assert result_of(g, g.add("Add", "x0", branch)) == ["Conv"]


@pytest.mark.parametrize(("first", "second"), [((1, 1), (3, 3)), ((3, 3), (1, 1)), ((3, 1), (1, 3)), ((1, 5), (4, 1))])
def test_sequences_that_are_exact_on_every_axis(
    g: GraphBuilder, first: tuple[int, int], second: tuple[int, int]
) -> None:
    y = conv(g, "x0", 4, 5, first, pads=[first[0] // 2, first[1] // 2] * 2, bias=False)
    y = conv(g, y, 5, 6, second, pads=[second[0] // 2, second[1] // 2] * 2)
    assert result_of(g, y) == ["Conv"]


def test_padded_case_1_two_padded_3x3_stay(g: GraphBuilder) -> None:
    y = conv(g, conv(g, "x0", 4, 5, pads=[1, 1, 1, 1], bias=False), 5, 6, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv", "Conv"]


@pytest.mark.parametrize("pads", [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
def test_padded_cases_1_and_2_every_side_alone(g: GraphBuilder, pads: list[int]) -> None:
    y = conv(g, conv(g, "x0", 4, 5, pads=[1, 1, 1, 1], bias=False), 5, 6, pads=pads)
    assert result_of(g, y) == ["Conv", "Conv"]


def test_padded_3x3_then_unpadded_3x3(g: GraphBuilder) -> None:
    y = conv(g, conv(g, "x0", 4, 5, pads=[1, 1, 1, 1]), 5, 6)
    assert result_of(g, y) == ["Conv"]


def test_fully_padded_then_padded(g: GraphBuilder) -> None:
    y = conv(g, conv(g, "x0", 4, 5, pads=[2, 2, 2, 2], bias=False), 5, 6, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv"]


def test_form_padded_case_2_a_bias_into_padding_stays(g: GraphBuilder) -> None:
    y = conv(g, conv(g, "x0", 4, 5, 1), 5, 6, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv", "Conv"]


def test_form_padded_case_2_a_bias_that_the_padding_carries_merges(g: GraphBuilder) -> None:
    bias = np.float32(0.75)
    y = g.add("Conv", "x0", weight(5, 4, 1, 1), np.full(5, bias))
    y = g.add("Pad", y, np.array([0, 0, 1, 1, 0, 0, 1, 1]), bias)
    assert result_of(g, conv(g, y, 5, 6)) == ["Conv"]


@pytest.mark.parametrize("strides", [(1, 2), (2, 1), (2, 2), (3, 2)])
def test_strided_sequences(g: GraphBuilder, strides: tuple[int, int]) -> None:
    y = conv(g, "x0", 4, 5, 1, strides=[strides[0]] * 2, bias=False)
    y = conv(g, y, 5, 6, 3, strides=[strides[1]] * 2, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv"]


def test_average_pool_with_counted_padding(g: GraphBuilder) -> None:
    y = conv(g, "x0", 4, 6, 1, bias=False)
    y = g.add("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    assert result_of(g, y) == ["Conv"]


def test_average_pool_case_1_padding_that_is_not_counted_stays(g: GraphBuilder) -> None:
    y = conv(g, "x0", 4, 6, 1, bias=False)
    y = g.add("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv", "AveragePool"]


def test_average_pool_case_2_ceil_mode() -> None:
    for size, expected in ((8, ["Conv"]), (7, ["Conv", "AveragePool"])):
        g = GraphBuilder((1, 4, size, size))
        y = conv(g, "x0", 4, 6, 1)
        y = g.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
        assert result_of(g, y) == expected


def test_concatenated_branches_then_1x1(g: GraphBuilder) -> None:
    branches = [conv(g, "x0", 4, 3, 3, pads=[1, 1, 1, 1]), "x0", conv(g, "x0", 4, 2, 1)]
    assert result_of(g, conv(g, g.add("Concat", *branches, axis=1), 9, 6, 1)) == ["Conv"]


def test_concat_of_the_width_stays(g: GraphBuilder) -> None:
    y = g.add("Concat", conv(g, "x0", 4, 3, 1), conv(g, "x0", 4, 3, 1), axis=3)
    assert result_of(g, y) == ["Conv", "Conv", "Concat"]


def test_two_sources_then_1x1_and_norm(g: GraphBuilder) -> None:
    g = GraphBuilder((2, 4, 7, 9), (2, 3, 7, 9))
    y = g.add("Concat", "x0", "x1", axis=1)
    y = g.add("BatchNormalization", conv(g, y, 7, 6, 1), *norm(6))
    assert result_of(g, y) == ["Concat", "Conv"]


def test_slices_of_channels_and_back(g: GraphBuilder) -> None:
    parts = g.add("Split", "x0", np.array([1, 3]), axis=1, outputs=2)
    mixed = g.add("Concat", conv(g, parts[1], 3, 3, 3, pads=[1, 1, 1, 1]), parts[0], axis=1)
    y = conv(g, g.add("Gather", mixed, np.array([3, 0, 2, 1]), axis=1), 4, 6, 1)
    assert result_of(g, y) == ["Conv"]


def test_a_strided_slice_and_a_1x1_max_pool_are_strided_identities(g: GraphBuilder) -> None:
    one = g.add("Slice", "x0", np.array([0, 0]), np.array([2**63 - 1] * 2), np.array([2, 3]), np.array([2, 2]))
    two = g.add("MaxPool", "x0", kernel_shape=[1, 1], strides=[2, 2])
    y = g.add("Add", g.add("Add", one, two), conv(g, "x0", 4, 4, 3, strides=[2, 2], pads=[1, 1, 1, 1]))
    assert result_of(g, y) == ["Conv"]


def test_a_crop_is_negative_padding(g: GraphBuilder) -> None:
    crop = g.add("Slice", "x0", np.array([1, 2]), np.array([-1, -1]), np.array([2, 3]))
    y = g.add("Add", conv(g, crop, 4, 6, 3, pads=[1, 1, 1, 1]), conv(g, crop, 4, 6, 1))
    assert result_of(g, y) == ["Slice", "Conv"]


@pytest.mark.parametrize("op", ["Relu", "LeakyRelu", "Sigmoid", "HardSwish"])
def test_a_nonlinearity_in_between_stays(g: GraphBuilder, op: str) -> None:
    y = g.add(op, conv(g, "x0", 4, 5, 1))
    y = g.add("Add", conv(g, y, 5, 4, 3, pads=[1, 1, 1, 1]), "x0")
    assert result_of(g, y) == ["Conv", op, "Conv", "Add"]


def test_a_product_of_two_tensors_stays(g: GraphBuilder) -> None:
    y = g.add("Mul", conv(g, "x0", 4, 4, 1), conv(g, "x0", 4, 4, 1))
    assert result_of(g, y) == ["Conv", "Conv", "Mul"]


def test_a_tensor_that_is_also_an_output_survives(g: GraphBuilder) -> None:
    inner = conv(g, "x0", 4, 5, 1)
    model = fused(g.model(conv(g, inner, 5, 6), inner), n=2).model
    assert [v.name for v in model.graph.output] == [g.nodes[1].output[0], inner]


def test_a_tensor_with_another_reader_survives(g: GraphBuilder) -> None:
    inner = conv(g, "x0", 4, 5, 1)
    y = g.add("Relu", inner)
    z = g.add("BatchNormalization", inner, *norm(5))
    result = fused(g.model(y, z), n=2)
    assert sorted(operators(result.model)).count("Conv") <= 2


def test_a_linear_bottleneck_that_is_cheaper_apart_stays() -> None:
    g = GraphBuilder((1, 256, 28, 28))
    y = conv(g, conv(g, "x0", 256, 16, 1), 16, 256, 3)
    result = fused(g.model(y), FuseOptions())
    assert operators(result.model) == ["Conv", "Conv"]
    assert [line.reason for line in result.report.kept] == ["cost"]


def test_an_identity_network_keeps_its_output_name() -> None:
    g = GraphBuilder(("n", 4, 7, 9))
    y = g.add("Identity", g.add("Neg", g.add("Neg", "x0")))
    model = fused(g.model(y), n=1).model
    assert [v.name for v in model.graph.output] == [y]


def test_kept_operations_say_why(g: GraphBuilder) -> None:
    y = conv(g, "x0", 4, 4, pads=[1, 1, 1, 1], bias=False)
    y = conv(g, y, 4, 4, pads=[1, 1, 1, 1])
    (line,) = fused(g.model(y), n=1).report.kept
    assert line.reason == "border"
    assert "real pixels" in line.sentence

    g = GraphBuilder((1, 32, 30, 30))
    shared = conv(g, "x0", 32, 4, 1)
    outputs = [g.add("Relu", conv(g, shared, 4, 32, 3)) for _ in range(3)]
    lines = fused(g.model(*outputs), FuseOptions()).report.kept
    assert {line.reason for line in lines} == {"shared tensor"}


def test_what_is_merged_depends_on_the_target() -> None:
    g = GraphBuilder((1, 64, 56, 56))
    y = conv(g, conv(g, "x0", 64, 64, (1, 11), pads=[0, 5, 0, 5], bias=False, group=64), 64, 64, (11, 1), group=64)
    model = g.model(y)
    assert operators(fuse(model, FuseOptions.for_target("cpu")).model) == ["Conv", "Conv"]
    assert operators(fuse(model, FuseOptions.for_target("gpu")).model) == ["Conv"]


def test_a_convolution_is_not_repeated_to_save_an_addition() -> None:
    """A hard swish written out adds 3 to the convolution that it multiplies."""
    g = GraphBuilder((1, 8, 28, 28))
    y = conv(g, "x0", 8, 64, 1)
    gate = g.add("Relu", g.add("Add", y, np.float32(3)))
    result = fused(g.model(g.add("Mul", y, gate)), FuseOptions())
    assert operators(result.model) == ["Conv", "Add", "Relu", "Mul"]
