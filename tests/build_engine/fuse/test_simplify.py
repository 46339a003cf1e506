"""Chunks written as sequences and sums written as stacks are the plain operators that they mean."""

from __future__ import annotations

import numpy as np
import pytest

from tests.build_engine.fuse.graphs import GraphBuilder, fused, operators

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("sizes", [np.array(2), np.array([3, 3])])
def test_simplify_case_1_chunks(opset: int, sizes: np.ndarray) -> None:
    g = GraphBuilder((1, 6, 5, 7), opset=opset)
    chunks = g.add("SplitToSequence", g.add("Conv", "x0", RNG.normal(size=(6, 6, 1, 1))), sizes, axis=1)
    first, last = (g.add("SequenceAt", chunks, np.array(at)) for at in (0, -1))
    names = operators(fused(g.model(g.add("Relu", g.add("Add", first, last)), shape=[1, None, 5, 7])).model)
    assert names == ["Conv", "Relu"]


def test_simplify_case_1_a_sequence_that_is_read_as_a_whole_stays() -> None:
    g = GraphBuilder((1, 6, 5, 7))
    chunks = g.add("SplitToSequence", g.add("Relu", "x0"), np.array(3), axis=1)
    y = g.add("ConcatFromSequence", chunks, axis=1)
    assert operators(fused(g.model(y, shape=[1, 6, 5, 7])).model) == ["Relu", "SplitToSequence", "ConcatFromSequence"]


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("reduction", ["ReduceMean", "ReduceSum"])
def test_simplify_case_2_a_stack_of_branches(opset: int, reduction: str) -> None:
    g = GraphBuilder((1, 4, 5, 7), opset=opset)
    branches = [g.add("Conv", "x0", RNG.normal(size=(4, 4, k, k)), pads=[k // 2] * 4) for k in (1, 3, 5)]
    as_input = opset >= 13
    stacked = [g.add("Unsqueeze", b, np.array([0])) if as_input else g.add("Unsqueeze", b, axes=[0]) for b in branches]
    whole = g.add("Concat", *stacked, axis=0)
    y = (
        g.add(reduction, whole, np.array([0]), keepdims=0)
        if as_input
        else g.add(reduction, whole, axes=[0], keepdims=0)
    )
    assert operators(fused(g.model(g.add("Relu", y))).model) == ["Conv", "Relu"]


def test_simplify_case_2_a_stack_that_is_an_output_keeps_its_name() -> None:
    g = GraphBuilder((1, 4, 5, 7))
    parts = [g.add("Unsqueeze", g.add("Relu", "x0"), np.array([0])), g.add("Unsqueeze", "x0", np.array([0]))]
    y = g.add("ReduceSum", g.add("Concat", *parts, axis=0), np.array([0]), keepdims=0)
    assert set(operators(fused(g.model(y)).model)) <= {"Add", "Identity", "Relu", "Sum"}


@pytest.mark.parametrize("slope", [1.0, 0.5])
def test_a_nonlinearity_whose_slope_became_1_is_none(slope: float) -> None:
    g = GraphBuilder((1, 4, 5, 7))
    y = g.add("LeakyRelu", g.add("Conv", "x0", RNG.normal(size=(4, 4, 1, 1))), alpha=slope)
    y = g.add("PRelu", g.add("Conv", y, RNG.normal(size=(4, 4, 1, 1))), np.full((4, 1, 1), slope))
    assert operators(fused(g.model(y)).model) == (["Conv"] if slope == 1 else ["Conv", "LeakyRelu", "Conv", "PRelu"])
