"""A graph written anew keeps what the bodies of conditionals read, and nothing that nobody reads."""

from __future__ import annotations

import numpy as np
import onnx

from build_engine.quantize.rewrite import rewritten
from build_engine.session import Session

CONDITIONAL = """
<ir_version: 9, opset_import: ["" : 17]> conditional (float[N] x) => (float[N] y) <float[1] factor={2.0}> {
    negative = Neg(x)
    unread = Abs(x)
    total = ReduceSum<keepdims=0>(x)
    zero = Constant<value_float=0.0>()
    positive = Greater(total, zero)
    y = If(positive) <
        then_branch = yes () => (float[N] a) { a = Mul(negative, factor) },
        else_branch = no () => (float[N] b) { b = Identity(negative) }>
}
"""


def test_what_a_conditional_reads_is_kept() -> None:
    model = onnx.parser.parse_model(CONDITIONAL)
    result = rewritten(model, list(model.graph.node), {"factor": np.array([3], np.float32)})
    assert [node.op_type for node in result.graph.node] == ["Neg", "ReduceSum", "Constant", "Greater", "If"]
    session = Session(result)
    for sign, factor in ((1, -3), (-1, -1)):
        x = sign * np.ones(4, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], factor * x)
