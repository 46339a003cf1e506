from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch

from build_engine.compile.interleaved import Ratio
from build_engine.fuse import Cost, FuseOptions, fuse
from build_engine.fuse.verify import Verifier
from build_engine.options import RemoveResiduals
from build_engine.progress import Silent
from build_engine.shortcuts import Measured, Shortcuts, decide, without_shortcuts
from tests.build_engine.fuse.exporting import exported, randomized
from tests.build_engine.fuse.graphs import operators
from tests.build_engine.fuse.test_residuals import network

BEFORE = Measured(Cost(macs=100, parameters=10, activation_bytes=300), 2.0, 300)
FASTER, SLOWER, UNCLEAR = Ratio(0.8, 0.7, 0.9, 50), Ratio(1.3, 1.2, 1.4, 50), Ratio(0.97, 0.9, 1.04, 50)


@pytest.mark.parametrize(
    ("mode", "latency", "rtx_bytes", "removed", "says"),
    [
        ("on", SLOWER, 400, True, "asked for"),
        ("auto", None, 200, False, "nothing was measured"),
        ("auto", SLOWER, 200, False, "not measured to be faster"),
        ("auto", UNCLEAR, 200, False, "not measured to be faster"),
        ("auto", FASTER, 301, False, "more activation memory"),
        ("auto", FASTER, 300, True, "measured to be better"),
    ],
)
def test_auto_removes_only_what_measures_better(
    mode: RemoveResiduals, latency: Ratio | None, rtx_bytes: int, removed: bool, says: str
) -> None:
    after = replace(BEFORE, rtx_activation_bytes=rtx_bytes)
    outcome, reason = decide(mode, BEFORE, after, latency)
    assert outcome is removed
    assert says in reason and "1.00x the multiply-accumulates" in reason


@pytest.fixture(scope="module")
def residual() -> onnx.ModelProto:
    torch.manual_seed(1)
    return fuse(exported(randomized(network()), (1, 3, 18, 22))).model


def remove(model: onnx.ModelProto, mode: RemoveResiduals, seconds: float) -> tuple[onnx.ModelProto, Shortcuts]:
    feed = {"x": np.random.default_rng(0).normal(size=(1, 3, 18, 22)).astype(np.float32)}
    return without_shortcuts(
        model, mode, Verifier(model, [feed]), options=FuseOptions(), seconds=seconds, threads=1, progress=Silent()
    )


def test_on_removes_them_and_reports_both_forms(residual: onnx.ModelProto) -> None:
    model, found = remove(residual, "on", seconds=0.02)
    assert "Add" not in operators(model)
    assert found.removed and len(found.removable) == 3
    assert found.with_them and found.without_them and found.latency
    assert found.without_them.cost.macs > found.with_them.cost.macs
    assert found.with_them.rtx_activation_bytes and found.without_them.median_ms
    assert max(step.live_bytes for step in found.live_without) == found.without_them.cost.activation_bytes


def test_auto_leaves_them_where_nothing_may_be_measured(residual: onnx.ModelProto) -> None:
    model, found = remove(residual, "auto", seconds=0)
    assert model is residual and not found.removed and found.latency is None


def test_a_network_without_shortcuts_says_so(classifier: onnx.ModelProto) -> None:
    plain = fuse(classifier).model
    model, found = without_shortcuts(plain, "on", None, options=FuseOptions(), seconds=0, threads=1, progress=Silent())
    assert model is plain and not found.removed and "no shortcut" in found.reason
