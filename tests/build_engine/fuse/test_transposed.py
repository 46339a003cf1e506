"""Transposed convolutions in groups, which the ONNX reference implementation cannot do, against torch."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from build_engine.fuse.algebra import Convolution, Deferred, TransposedConvolution, Window

RNG = np.random.default_rng(3)


def run(term: TransposedConvolution, x: torch.Tensor) -> torch.Tensor:
    y = F.conv_transpose2d(x, torch.from_numpy(term.weight.value), stride=term.strides, groups=term.groups)
    (top, bottom), (left, right) = term.pads
    return y[..., top : y.shape[2] - bottom, left : y.shape[3] - right]


def point(c_in: int, c_out: int, groups: int = 1) -> tuple[Convolution, torch.Tensor]:
    weight = RNG.normal(size=(c_out, c_in // groups, 1, 1))
    return Convolution(Deferred.of(weight), (Window(), Window()), groups), torch.from_numpy(weight)


def test_groups_with_pointwise_maps_on_both_sides() -> None:
    x = torch.from_numpy(RNG.normal(size=(2, 6, 3, 5)))
    term = TransposedConvolution(
        Deferred.of(RNG.normal(size=(4, 3, 3, 2))), (2, 3), (1, 1), ((1, 0), (0, 1)), (0, 0), 2
    )
    before, w1 = point(6, 4, 2)
    after, w2 = point(6, 8, 2)
    expected = F.conv2d(run(term, F.conv2d(x, w1, groups=2)), w2, groups=2)
    torch.testing.assert_close(run(term.of(before).then(after), x), expected)
    scale = RNG.normal(size=6)
    scaled = run(term, x[:, :4]) * torch.from_numpy(scale).view(1, -1, 1, 1)
    torch.testing.assert_close(run(term.scaled(Deferred.of(scale)), x[:, :4]), scaled)
    cropped = run(term.padded([(-1, -1), (0, -1)]), x[:, :4])
    torch.testing.assert_close(cropped, run(term, x[:, :4])[..., 1:-1, :-1])
