from __future__ import annotations

import onnx
import pytest

from build_engine.compile.cpu import batch_sizes, kernels, measure
from build_engine.graph import feeds, random_inputs, serialize, tensor_specs
from build_engine.progress import Silent


@pytest.mark.parametrize(("largest", "sizes"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_batches_that_are_measured(largest: int, sizes: list[int]) -> None:
    assert list(batch_sizes(largest)) == sizes


def test_graphs_are_measured_in_turns_so_each_has_as_many_runs(
    camera_detector: onnx.ModelProto, fused_detector: onnx.ModelProto
) -> None:
    graphs = {"trained": serialize(camera_detector), "fused": serialize(fused_detector)}
    inputs = {batch: random_inputs(tensor_specs(feeds(fused_detector)), batch, 0) for batch in (1, 2)}
    rows = measure(graphs, inputs, seconds=0.05, threads=1, progress=Silent())
    assert [(row.graph, row.batch) for row in rows] == [("trained", 1), ("fused", 1), ("trained", 2), ("fused", 2)]
    assert rows[0].runs == rows[1].runs >= 5
    assert all(0 < row.median_ms <= row.p90_ms for row in rows)


def test_kernels_are_those_after_the_runtimes_own_optimization(fused_detector: onnx.ModelProto) -> None:
    counted = kernels(serialize(fused_detector))
    assert "Relu" not in counted, "ONNX Runtime computes it inside the convolution"
