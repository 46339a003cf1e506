"""Optimization profiles of free dimensions: real compiles with TensorRT-RTX, whose plans say which shapes they take."""

from __future__ import annotations

import re
import struct
from dataclasses import replace

import pytest
from onnx import TensorProto, helper

from engine.errors import BuildFailed
from engine.manifest import FreeDimension
from engine.tensorrt.plan import CompiledPlan, PlanOptions, build_plan
from engine.tensorrt.profile import profile_shapes
from tests.engine.graphs import model, weight

pytest.importorskip("tensorrt_rtx", reason="pip install 'monocoque[rtx]'")
FLOAT = TensorProto.FLOAT
node = helper.make_node
HEIGHT = FreeDimension(smallest=17, usual=35, largest=71)
WIDTH = FreeDimension(smallest=19, usual=53, largest=97)
LENGTH = FreeDimension(smallest=3, usual=11, largest=29)
OPTIONS = PlanOptions(max_batch=5, opt_batch=2, dimensions={"height": HEIGHT, "width": WIDTH})


def pyramid() -> bytes:
    """`half` (N, 8, height/2, width/2) = convolution of `image` (N, 3, height, width); `mean` (N, 8, 1, 1) of it."""
    return model(
        [
            node("Conv", ["image", "w"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
            node("Relu", ["c"], ["half"], name="relu"),
            node("GlobalAveragePool", ["half"], ["mean"], name="pool"),
        ],
        [("image", FLOAT, ["batch", 3, "height", "width"])],
        [("half", FLOAT, ["batch", 8, "half_2", "half_3"]), ("mean", FLOAT, ["batch", 8, 1, 1])],
        [weight("w", 8, 3, 3, 3)],
    )


def attention() -> bytes:
    """`scores` (length, N) = `keys` (length, 4) times `query` (N, 4): a free dimension that comes first, no batch."""
    return model(
        [
            node("Transpose", ["query"], ["turned"], name="turn", perm=[1, 0]),
            node("MatMul", ["keys", "turned"], ["scores"], name="multiply"),
        ],
        [("keys", FLOAT, ["length", 4]), ("query", FLOAT, ["batch", 4])],
        [("scores", FLOAT, ["length", "batch"])],
    )


def in_order(plan: bytes, *shapes: tuple[int, ...]) -> bool:
    """Whether a plan holds these shapes, one after the other: a profile's, as it stores them (64 bits, little-endian).

    No engine can be read without a driver, so its file is asked.
    """
    stored = (re.escape(struct.pack(f"<{len(shape)}q", *shape)) for shape in shapes)
    return re.search(b".{,64}?".join(stored), plan, re.DOTALL) is not None


@pytest.fixture(scope="module")
def plan() -> CompiledPlan:
    return build_plan(pyramid(), "rtx", OPTIONS)


def test_a_plan_has_the_least_the_usual_and_the_largest_shape(plan: CompiledPlan) -> None:
    assert in_order(plan.data, (1, 3, 17, 19), (2, 3, 35, 53), (5, 3, 71, 97))
    assert not in_order(plan.data, (1, 3, 1, 1), (2, 3, 35, 53), (5, 3, 71, 97))
    assert not in_order(plan.data, (5, 3, 71, 97), (2, 3, 35, 53), (1, 3, 17, 19))


def test_memory_is_for_the_largest_shape(plan: CompiledPlan) -> None:
    lower = FreeDimension(smallest=17, usual=35, largest=35)
    smaller = build_plan(pyramid(), "rtx", replace(OPTIONS, dimensions={"height": lower, "width": WIDTH}))
    assert plan.activation_bytes is not None and smaller.activation_bytes is not None
    assert smaller.activation_bytes < plan.activation_bytes


def test_every_input_is_in_the_profile_and_a_dimension_with_sizes_may_come_first() -> None:
    plan = build_plan(attention(), "rtx", PlanOptions(max_batch=6, dimensions={"length": LENGTH}))
    assert in_order(plan.data, (3, 4), (11, 4), (29, 4))
    assert in_order(plan.data, (1, 4), (6, 4), (6, 4))


def test_none_of_it_may_be_the_smallest() -> None:
    none = FreeDimension(smallest=0, usual=11, largest=29)
    plan = build_plan(attention(), "rtx", PlanOptions(max_batch=6, dimensions={"length": none}))
    assert in_order(plan.data, (0, 4), (11, 4), (29, 4))


def test_sizes_are_in_the_key_where_there_are_any(plan: CompiledPlan) -> None:
    assert plan.key["dimensions"] == "height=17:35:71,width=19:53:97"
    assert "dimensions" not in PlanOptions().key(), "plans of before have none"


def test_sizes_that_are_not_given_are_asked_for_with_the_flag() -> None:
    with pytest.raises(BuildFailed, match="the sizes of height, width are not known") as caught:
        build_plan(pyramid(), "rtx", PlanOptions(max_batch=5))
    assert "--dimension height=1:128:512 --dimension width=1:128:512" in caught.value.remedy
    with pytest.raises(BuildFailed, match="the sizes of width are not known"):
        build_plan(pyramid(), "rtx", PlanOptions(dimensions={"height": HEIGHT}))


def test_a_dimension_without_a_name_is_called_after_its_input() -> None:
    shapes = profile_shapes("x", (-1, -1, 7), (None, None, None), (1, 2, 4), {"x_1": LENGTH})
    assert shapes == ((1, 3, 7), (2, 11, 7), (4, 29, 7))
