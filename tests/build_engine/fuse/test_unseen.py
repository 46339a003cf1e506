from __future__ import annotations

import numpy as np
import pytest

from build_engine.fuse import count, fuse
from build_engine.fuse.verify import verify_fusion
from tests.build_engine.fuse.exporting import exported, randomized
from tests.build_engine.fuse.unseen import UNSEEN

# The dynamo exporter without its optimizer writes chunks as sequences and takes seconds; the other one is fast.
_EXPORTERS = {"cross-stage": "dynamo-unoptimized", "computed-weights": "dynamo"}


@pytest.mark.parametrize("name", UNSEEN)
def test_a_network_that_no_rule_was_written_for(name: str) -> None:
    network = UNSEEN[name]
    model = exported(randomized(network.make()), network.input_shape, _EXPORTERS.get(name, "torchscript"))
    result = fuse(model)
    verify_fusion(model, result.model, [{"x": np.random.default_rng(1).normal(size=network.input_shape).astype("f")}])
    left = [node.op_type for node in result.model.graph.node]
    assert count(result.model).convolutions <= network.deploy_convolutions, left
    assert "BatchNormalization" not in left
