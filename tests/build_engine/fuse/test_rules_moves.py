"""Rules that look through layouts, and those that move what is pointwise across what is not."""

from __future__ import annotations

import numpy as np
import pytest

from build_engine.fuse import FuseOptions
from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators
from tests.build_engine.fuse.rule_cases import conv, norm, result_of, weight


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
