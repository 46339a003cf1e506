"""What treats every pixel alike goes in front of what moves or repeats pixels, and into the convolution there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators

RNG = np.random.default_rng(15)
DOUBLE = np.array([1, 1, 2, 2], dtype=np.float32)
REFLECT = np.array([0, 0, 1, 1, 0, 0, 1, 1])


@pytest.fixture
def g() -> GraphBuilder:
    return GraphBuilder((2, 3, 4, 5))


def conv(g: GraphBuilder, x: str, c_in: int, c_out: int, kernel: int = 3) -> Any:
    weight = RNG.normal(size=(c_out, c_in, kernel, kernel))
    return g.add("Conv", x, weight, RNG.normal(size=c_out), pads=[kernel // 2] * 4)


def norm(g: GraphBuilder, x: str, c: int) -> Any:
    stats = [RNG.uniform(0.5, 1.5, c), RNG.normal(size=c), RNG.normal(size=c), RNG.uniform(0.3, 2, c)]
    return g.add("BatchNormalization", x, *stats)


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_hoist_case_1_a_norm_a_scale_and_a_shift_after_depth_to_space(g: GraphBuilder, mode: str) -> None:
    y = norm(g, g.add("DepthToSpace", conv(g, "x0", 3, 8), blocksize=2, mode=mode), 2)
    y = g.add("Add", g.add("Mul", y, RNG.normal(size=(2, 1, 1))), RNG.normal(size=(1, 2, 1, 1)))
    y = g.add("Div", g.add("Sub", np.float32(1), y), np.float32(3))
    assert operators(fused(g.model(y)).model) == ["Conv", "DepthToSpace"]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_hoist_case_1_a_norm_and_a_1x1_after_a_resize(g: GraphBuilder, mode: str) -> None:
    y = conv(g, g.add("Resize", conv(g, "x0", 3, 8), "", DOUBLE, mode=mode), 8, 4, 1)
    assert operators(fused(g.model(g.add("Relu", norm(g, y, 4)))).model) == ["Conv", "Resize", "Relu"]


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_hoist_case_1_a_norm_after_a_border_of_pixels(g: GraphBuilder, mode: str) -> None:
    y = norm(g, g.add("Pad", conv(g, "x0", 3, 4), REFLECT, mode=mode), 4)
    assert operators(fused(g.model(g.add("Relu", y))).model) == ["Conv", "Pad", "Relu"]


def test_hoist_case_1_a_constant_border_stays_in_front(g: GraphBuilder) -> None:
    y = norm(g, g.add("Pad", conv(g, "x0", 3, 4), REFLECT, np.float32(7)), 4)
    assert operators(fused(g.model(g.add("Relu", y))).model) == ["Conv", "Pad", "Mul", "Add", "Relu"]


def test_hoist_case_2_a_1x1_that_makes_more_channels_stays(g: GraphBuilder) -> None:
    y = conv(g, g.add("Resize", conv(g, "x0", 3, 2), "", DOUBLE, mode="nearest"), 2, 6, 1)
    assert operators(fused(g.model(g.add("Relu", y))).model) == ["Conv", "Resize", "Conv", "Relu"]


def test_hoist_case_2_a_3x3_after_a_resize_stays(g: GraphBuilder) -> None:
    y = conv(g, g.add("Resize", conv(g, "x0", 3, 4), "", DOUBLE, mode="nearest"), 4, 4)
    assert operators(fused(g.model(g.add("Relu", y))).model) == ["Conv", "Resize", "Conv", "Relu"]


def test_hoist_case_3_a_tensor_with_another_reader_stays(g: GraphBuilder) -> None:
    up = g.add("Resize", conv(g, "x0", 3, 4), "", DOUBLE, mode="nearest")
    y = g.add("Mul", norm(g, up, 4), g.add("Sigmoid", up))
    assert operators(fused(g.model(y)).model) == ["Conv", "Resize", "Sigmoid", "Mul", "Add", "Mul"]
