from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from build_engine.fuse import fuse
from build_engine.fuse.residuals import remove_residuals
from build_engine.fuse.verify import verify_fusion
from tests.build_engine.fuse.exporting import exported, randomized
from tests.build_engine.fuse.graphs import operators


class BasicBlock(nn.Module):
    """ResNet's block (arXiv 1512.03385)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, act: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), act())
        self.two = nn.Sequential(nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or c_in != c_out:
            self.skip = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.two(self.one(x)) + self.skip(x))
        return result


def network(act: type[nn.Module] = nn.ReLU) -> nn.Module:
    stem = nn.Sequential(nn.Conv2d(3, 6, 3, 1, 1), act(), nn.MaxPool2d(2, 2))
    return nn.Sequential(stem, BasicBlock(6, 6, act=act), BasicBlock(6, 8, 2, act), BasicBlock(8, 8, act=act))


def test_trained_shortcuts_go_and_nothing_changes() -> None:
    torch.manual_seed(1)
    model = exported(randomized(network()), (1, 3, 18, 22))
    fused = fuse(model).model
    result = remove_residuals(fused)
    assert len(result.removed) == 3
    assert operators(result.model) == ["Conv", "Relu", "MaxPool", *["Conv", "Relu"] * 6]
    feed = {"x": np.random.default_rng(0).normal(size=(1, 3, 18, 22)).astype(np.float32)}
    verify_fusion(model, result.model, [feed])
    assert result.after.macs > result.before.macs


@pytest.mark.parametrize("act", [nn.LeakyReLU, nn.SiLU])
def test_activations_that_let_negatives_through_keep_their_shortcuts(act: type[nn.Module]) -> None:
    fused = fuse(exported(randomized(network(act)), (1, 3, 18, 22))).model
    assert remove_residuals(fused).removed == ()


def test_a_source_that_may_be_negative_keeps_its_shortcut() -> None:
    fused = fuse(exported(randomized(BasicBlock(6, 6)), (1, 6, 9, 11))).model
    assert remove_residuals(fused).removed == ()
