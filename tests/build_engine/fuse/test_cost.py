from __future__ import annotations

import numpy as np
import onnx_ir as ir

from build_engine.fuse import FuseOptions, count, fuse
from build_engine.fuse.cost import live_steps
from tests.build_engine.fuse.graphs import GraphBuilder

RNG = np.random.default_rng(3)
TENSOR = 4 * 8 * 5 * 5
"""Bytes of one tensor of the graphs below."""


def conv(g: GraphBuilder, x: str) -> str:
    return str(g.add("Conv", x, RNG.normal(size=(8, 8, 3, 3)), pads=[1, 1, 1, 1]))


def live(g: GraphBuilder, output: str) -> list[float]:
    graph = ir.serde.deserialize_model(g.model(output)).graph
    return [step.live_bytes / TENSOR for step in live_steps(graph, FuseOptions())]


def test_a_chain_holds_two_tensors() -> None:
    g = GraphBuilder((1, 8, 5, 5))
    assert live(g, conv(g, conv(g, conv(g, "x0")))) == [2, 2, 2]


def test_a_shortcut_is_held_until_it_is_added() -> None:
    g = GraphBuilder((1, 8, 5, 5))
    assert live(g, g.add("Add", conv(g, conv(g, "x0")), "x0")) == [2, 3, 3]


def test_views_hold_nothing_of_their_own() -> None:
    g = GraphBuilder((1, 8, 5, 5))
    y = g.add("Reshape", conv(g, "x0"), np.array([1, 8, 5, 5]))
    assert live(g, conv(g, y)) == [2, 2]


def test_a_regions_live_memory_counts_what_it_reads_and_what_others_read() -> None:
    g = GraphBuilder((1, 8, 5, 5))
    y = g.add("Relu", g.add("Add", g.add("Add", conv(g, "x0"), conv(g, "x0")), "x0"))
    (region,) = fuse(g.model(y)).report.regions
    assert region.before.activation_bytes == 4 * TENSOR  # source, two branches and the sum
    assert region.after.activation_bytes == 2 * TENSOR


def test_a_batch_counts_as_one_wherever_it_is_transposed_to() -> None:
    g = GraphBuilder(("batch", 8, 5, 5))
    y = g.add("Transpose", g.add("Relu", g.add("Transpose", "x0", perm=[2, 1, 0, 3])), perm=[2, 1, 0, 3])
    assert count(g.model(y)).activation_bytes == 2 * TENSOR


def test_sizes_that_are_open_count_as_the_options_say() -> None:
    g = GraphBuilder(("batch", 8, "h", "w"))
    assert count(g.model(g.add("Relu", "x0")), FuseOptions(symbolic_size=5)).activation_bytes == 2 * TENSOR


def test_the_peak_over_time_is_what_the_model_is_said_to_take() -> None:
    g = GraphBuilder((1, 8, 5, 5))
    model = g.model(g.add("Relu", g.add("Add", conv(g, conv(g, "x0")), "x0")))
    report = fuse(model).report
    assert max(step.live_bytes for step in report.live_before) == report.before.activation_bytes
    assert report.before == count(model)
