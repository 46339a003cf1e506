"""The float64 reference agrees with ONNX Runtime where onnx.reference lacks cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest

from build_engine.fuse.reference import float64_evaluator
from tests.build_engine.fuse.graphs import GraphBuilder, feeds

RNG = np.random.default_rng(14)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    "geometry",
    [
        {},
        {"strides": [2, 3], "dilations": [1, 2], "pads": [0, 1, 1, 0], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [9, 11]},
        {"strides": [3, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [3, 2], "auto_pad": "SAME_LOWER"},
    ],
)
def test_transposed_convolutions(groups: int, geometry: dict[str, Any]) -> None:
    g = GraphBuilder((2, 6, 4, 5), opset=17)
    weight, bias = RNG.normal(size=(6, 2, 2, 3)), RNG.normal(size=2 * groups)
    model = g.model(g.add("ConvTranspose", "x0", weight, bias, group=groups, **geometry))
    feed = feeds(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, feed)
    (actual,) = float64_evaluator(model).run(None, {"x0": feed["x0"].astype(np.float64)})
    assert actual.dtype == np.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
