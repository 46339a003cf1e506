from __future__ import annotations

import numpy as np
import pytest

from build_engine.fuse import count, fuse
from build_engine.fuse.verify import verify_fusion
from tests.build_engine.fuse.exporting import EXPORTERS, exported, randomized
from tests.build_engine.fuse.families import DBB, FAMILIES


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_reaches_its_deploy_form(name: str, exporter: str) -> None:
    family = FAMILIES[name]
    model = exported(randomized(family.make()), family.input_shape, exporter)
    result = fuse(model)
    verify_fusion(model, result.model, [{"x": np.random.default_rng(1).normal(size=family.input_shape).astype("f")}])
    left = [node.op_type for node in result.model.graph.node]
    assert count(result.model).convolutions <= family.deploy_convolutions, left
    assert not {"BatchNormalization", "ScatterND", "Slice", "Transpose"} & set(left), left


@pytest.mark.parametrize("exporter", EXPORTERS)
def test_the_border_of_a_wide_diverse_branch_block(exporter: str) -> None:
    """Among 96 channels some biases cancel, and float32 rounds their padding constants differently from ours."""
    model = exported(randomized(DBB(96, 96)), (1, 96, 9, 12), exporter)
    assert [node.op_type for node in fuse(model).model.graph.node] == ["Conv", "Relu"]
