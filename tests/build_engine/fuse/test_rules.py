"""Each rule on a node or two: what it merges, and each numbered condition under which it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.fuse import FuseOptions, fuse
from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators

RNG = np.random.default_rng(7)


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape)


def norm(c: int) -> list[np.ndarray]:
    return [RNG.uniform(0.5, 1.5, c), RNG.normal(size=c), RNG.normal(size=c), RNG.uniform(0.3, 2, c)]


@pytest.fixture
def g() -> GraphBuilder:
    return GraphBuilder(("n", 4, 7, 9))


def conv(g: GraphBuilder, x: str, c_in: int, c_out: int, kernel: int | tuple[int, int] = 3, **kwargs: object) -> str:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    group = int(kwargs.get("group", 1))  # type: ignore[call-overload]
    operands = [weight(c_out, c_in // group, *size)]
    if kwargs.pop("bias", True):
        operands.append(weight(c_out))
    name: str = g.add("Conv", x, *operands, kernel_shape=list(size), **kwargs)
    return name


def result_of(g: GraphBuilder, *outputs: str, n: int = 2) -> list[str]:
    return operators(fused(g.model(*outputs), n=n).model)


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


def shuffled(g: GraphBuilder, x: str, groups: int, channels: int) -> str:
    y = g.add("Reshape", x, np.array([0, groups, channels // groups, 7, 9]))
    y = g.add("Transpose", y, perm=[0, 2, 1, 3, 4])
    name: str = g.add("Reshape", y, np.array([0, channels, 7, 9]))
    return name


def test_a_channel_shuffle_permutes_rows(g: GraphBuilder) -> None:
    y = conv(g, shuffled(g, conv(g, "x0", 4, 6, 1), 2, 6), 6, 5, 1)
    assert result_of(g, y) == ["Conv"]


def test_layers_in_nhwc(g: GraphBuilder) -> None:
    y = g.add("Transpose", conv(g, "x0", 4, 4, 3, pads=[1, 1, 1, 1], group=4), perm=[0, 2, 3, 1])
    y = g.add("Add", g.add("MatMul", y, weight(4, 6)), weight(6))
    y = g.add("Transpose", g.add("Mul", y, weight(6)), perm=[0, 3, 1, 2])
    assert result_of(g, y) == ["Conv"]


def test_layers_on_flattened_pixels(g: GraphBuilder) -> None:
    y = g.add("Transpose", g.add("Reshape", "x0", np.array([0, 4, 63])), perm=[0, 2, 1])
    y = g.add("Add", y, g.add("MatMul", y, weight(4, 4)))
    y = g.add("Reshape", g.add("Transpose", y, perm=[0, 2, 1]), np.array([0, 4, 7, 9]))
    assert result_of(g, conv(g, y, 4, 5, 1)) == ["Conv"]


def test_a_matrix_product_along_the_width_stays(g: GraphBuilder) -> None:
    y = g.add("MatMul", conv(g, "x0", 4, 4, 1), weight(9, 9))
    assert result_of(g, y) == ["Conv", "MatMul"]


@pytest.mark.parametrize("opset", [11, 20])
def test_linear_layers_and_norms_on_vectors(opset: int) -> None:
    g = GraphBuilder(("n", 6), opset=opset)
    y = g.add("Gemm", g.add("BatchNormalization", "x0", *norm(6)), weight(5, 6), weight(5), transB=1, alpha=0.5)
    y = g.add("Add", g.add("MatMul", y, weight(5, 4)), weight(4))
    assert result_of(g, y) == ["Gemm"]


def test_a_norm_of_vectors_alone_is_no_matrix() -> None:
    g = GraphBuilder(("n", 6))
    assert result_of(g, g.add("BatchNormalization", "x0", *norm(6))) == ["Mul", "Add"]


def test_pixel_unshuffle_by_reshapes() -> None:
    g = GraphBuilder(("n", 3, 8, 6))
    y = g.add("Reshape", "x0", np.array([0, 3, 4, 2, 3, 2]))
    y = g.add("Reshape", g.add("Transpose", y, perm=[0, 1, 3, 5, 2, 4]), np.array([0, 12, 4, 3]))
    assert result_of(g, conv(g, y, 12, 5, 3, pads=[1, 1, 1, 1])) == ["Conv"]


def test_space_to_depth() -> None:
    g = GraphBuilder(("n", 3, 8, 6))
    y = conv(g, g.add("SpaceToDepth", "x0", blocksize=2), 12, 5, 3, pads=[1, 1, 1, 1])
    assert result_of(g, y) == ["Conv"]


def test_a_norm_and_a_1x1_after_a_transposed_convolution(g: GraphBuilder) -> None:
    y = g.add("ConvTranspose", "x0", weight(4, 6, 2, 2), weight(6), strides=[2, 2])
    y = g.add("BatchNormalization", y, *norm(6))
    assert result_of(g, conv(g, y, 6, 5, 1)) == ["ConvTranspose"]


def test_a_1x1_without_bias_before_a_transposed_convolution(g: GraphBuilder) -> None:
    y = conv(g, "x0", 4, 4, 1, bias=False)
    y = g.add("ConvTranspose", y, weight(4, 6, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], output_padding=[1, 1])
    one = g.add("ConvTranspose", "x0", weight(4, 6, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2], output_padding=[1, 1])
    assert result_of(g, g.add("Add", y, one)) == ["ConvTranspose"]


def test_conv_transpose_case_2_a_bias_before_it_stays(g: GraphBuilder) -> None:
    y = g.add("ConvTranspose", conv(g, "x0", 4, 4, 1), weight(4, 6, 3, 3), strides=[2, 2])
    assert result_of(g, y) == ["Conv", "ConvTranspose"]


def test_a_3x3_after_a_transposed_convolution_stays(g: GraphBuilder) -> None:
    y = conv(g, g.add("ConvTranspose", "x0", weight(4, 6, 2, 2), strides=[2, 2]), 6, 5, 3)
    assert result_of(g, y) == ["ConvTranspose", "Conv"]


def test_what_is_pointwise_moves_across_a_global_average(g: GraphBuilder) -> None:
    y = g.add("GlobalAveragePool", conv(g, "x0", 4, 8, 1))
    assert result_of(g, conv(g, y, 8, 5, 1)) == ["GlobalAveragePool", "Conv"]


def test_what_is_pointwise_moves_across_a_mean_and_a_resize(g: GraphBuilder) -> None:
    y = g.add("Resize", conv(g, "x0", 4, 8, 1), "", np.array([1, 1, 2, 2], dtype=np.float32), mode="linear")
    y = g.add("ReduceMean", conv(g, y, 8, 6, 1), np.array([-1, -2]), keepdims=1)
    assert result_of(g, conv(g, y, 6, 5, 1)) == ["Resize", "ReduceMean", "Conv"]


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_a_norm_moves_across_a_border_of_pixels(g: GraphBuilder, mode: str) -> None:
    y = g.add("Pad", g.add("BatchNormalization", "x0", *norm(4)), np.array([0, 0, 1, 2, 0, 0, 1, 2]), mode=mode)
    assert result_of(g, conv(g, y, 4, 6)) == ["Pad", "Conv"]


def test_a_3x3_does_not_move_across_a_resize(g: GraphBuilder) -> None:
    y = g.add("Resize", conv(g, "x0", 4, 4, 3), "", np.array([1, 1, 2, 2], dtype=np.float32))
    assert result_of(g, conv(g, y, 4, 6, 1)) == ["Conv", "Resize", "Conv"]


def test_a_norm_moves_across_an_average_that_leaves_padding_out(g: GraphBuilder) -> None:
    y = g.add("BatchNormalization", "x0", *norm(4))
    y = g.add("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    assert result_of(g, conv(g, y, 4, 6, 1)) == ["AveragePool", "Conv"]


def test_a_norm_after_a_concatenation_goes_into_its_parts() -> None:
    """CSPNet's block, as YOLOv4 and YOLOv5 have it (arXiv 1911.11929)."""
    g = GraphBuilder((1, 32, 21, 19), (1, 24, 21, 19))
    one = conv(g, g.add("Relu", "x0"), 32, 32, 3, pads=[1, 1, 1, 1], bias=False)
    two = conv(g, g.add("Relu", "x1"), 24, 32, 1)
    y = g.add("BatchNormalization", g.add("Concat", one, two, axis=1), *norm(64))
    result = fused(g.model(g.add("LeakyRelu", y)), FuseOptions())
    assert operators(result.model) == ["Relu", "Relu", "Conv", "Conv", "Concat", "LeakyRelu"]


def test_a_depthwise_convolution_after_a_concatenation_goes_into_its_parts() -> None:
    g = GraphBuilder((1, 32, 17, 19), (1, 24, 17, 19))
    y = g.add(
        "Concat", conv(g, "x0", 32, 32, 1, bias=False, group=32), conv(g, "x1", 24, 24, 1, group=24, bias=False), axis=1
    )
    result = fused(g.model(conv(g, y, 56, 56, 3, pads=[1, 1, 1, 1], group=56)), FuseOptions())
    assert operators(result.model) == ["Conv", "Conv", "Concat"]
    assert result.report.after.macs == 56 * 9 * 17 * 19


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
