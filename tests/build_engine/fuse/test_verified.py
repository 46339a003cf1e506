"""A region that misses the bound stays as it was and is named; the rest stays fused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.fuse import FuseOptions, fuse_verified
from build_engine.fuse.verify import FusionMismatch, Verifier
from tests.build_engine.fuse.graphs import EAGER, GraphBuilder, operators


def three_regions(*, cancelling: tuple[int, ...]) -> onnx.ModelProto:
    """Three pairs of a convolution and a scale, with ReLUs between them.

    A cancelling pair is exact in float32 on whole numbers, because the scale comes last: ``(4096 x - 4096 x + x) / 3``.
    Its weights as one, ``4096 / 3``, are rounded before they cancel, so it is off by more than the bound.
    """
    g = GraphBuilder((1, 3, 5, 7))
    y = "x0"
    for index in range(3):
        weight, scale = np.ones((3, 3, 1, 1)), np.float32(0.5)
        if index in cancelling:
            weight[:, :, 0, 0], scale = [4096.0, -4096.0, 1.0], np.float32(1 / 3)
        y = g.add("Relu", g.add("Mul", g.add("Conv", y, weight), scale))
    return g.model(y)


def whole_numbers(model: onnx.ModelProto) -> Verifier:
    return Verifier(model, [{"x0": np.full((1, 3, 5, 7), value, dtype=np.float32)} for value in (1, 3, 7)])


@pytest.mark.parametrize("cancelling", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_regions_that_miss_the_bound_stay_and_are_named(cancelling: tuple[int, ...]) -> None:
    model = three_regions(cancelling=cancelling)
    result = fuse_verified(model, whole_numbers(model), EAGER)
    expected = [op for i in range(3) for op in (["Conv", "Mul", "Relu"] if i in cancelling else ["Conv", "Relu"])]
    assert operators(result.model) == expected
    missed = [line for line in result.report.kept if line.reason == "verification"]
    assert {line.name for line in missed} >= {f"n_mul{3 * i + 1}" for i in cancelling}
    assert all(error.fused <= error.bound for error in result.verification.outputs)
    if cancelling:
        assert "as one, output 'relu8' is off by" in missed[0].sentence


def test_what_is_changed_apart_from_fusion_is_no_regions_fault() -> None:
    model = three_regions(cancelling=())

    def break_(fused: onnx.ModelProto) -> onnx.ModelProto:
        broken = onnx.ModelProto()
        broken.CopyFrom(fused)
        broken.graph.node[-1].op_type = "Neg"
        return broken

    with pytest.raises(FusionMismatch, match="off by"):
        fuse_verified(model, whole_numbers(model), EAGER, finish=break_)


def test_nodes_may_be_excluded_by_name() -> None:
    model = three_regions(cancelling=())
    result = fuse_verified(model, whole_numbers(model), FuseOptions(excluded=frozenset({"n_conv3"})))
    assert operators(result.model).count("Mul") == 1
