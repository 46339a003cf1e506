"""Training forms that no rule was written for: each reaches the fewest convolutions that its nonlinearities allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.build_engine.fuse.families import Family, conv_bn


class Net(nn.Module):
    """A forward pass written as a function of its parts; tensors become parameters."""

    def __init__(self, run: Callable[[Any, Tensor], Any], /, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, x: Tensor) -> Any:
        return self.run(self, x)


def same(c_in: int, c_out: int, kernel: int = 1, **kwargs: Any) -> nn.Sequential:
    """A convolution that keeps the size, and its norm."""
    return conv_bn(c_in, c_out, kernel, padding=kernel // 2, **kwargs)


def learnable_affine() -> nn.Module:
    """PP-HGNet and PP-LCNetV3: depthwise branches and a norm, then a learned scale and shift of all channels."""

    def run(m: Net, x: Tensor) -> Tensor:
        return m.point(F.hardswish(m.scale * (sum(b(x) for b in m.branches) + m.skip(x)) + m.shift))

    branches = nn.ModuleList(same(8, 8, k, groups=8) for k in (1, 3, 5))
    return Net(
        run, branches=branches, skip=nn.BatchNorm2d(8), scale=torch.rand(1), shift=torch.rand(1), point=same(8, 16)
    )


def gated_branches() -> nn.Module:
    """RepNAS: every kernel shape, weighted by a softmax, with an average and the identity."""
    shapes = [(1, 1), (3, 3), (1, 3), (5, 1), (5, 5)]

    def run(m: Net, x: Tensor) -> Tensor:
        gates = torch.softmax(m.gates, 0)
        total = gates[5] * x + gates[6] * F.avg_pool2d(x, 3, 1, 1)
        return F.relu(total + sum(gate * branch(x) for gate, branch in zip(gates, m.branches, strict=False)))

    branches = nn.ModuleList(conv_bn(8, 8, (h, w), padding=(h // 2, w // 2)) for h, w in shapes)
    return Net(run, gates=torch.rand(7), branches=branches)


def quantization_aware() -> nn.Module:
    """YOLO-NAS: QARepVGG with a learned weight of the 1x1."""

    def run(m: Net, x: Tensor) -> Tensor:
        return F.relu(m.post(m.dense(x) + m.alpha * m.point(x) + x))

    return Net(run, dense=same(8, 8, 3), point=nn.Conv2d(8, 8, 1), alpha=torch.rand(1), post=nn.BatchNorm2d(8))


def computed_weights() -> nn.Module:
    """OREPA, and standardized weights: kernels are computed from parameters on every call."""

    def run(m: Net, x: Tensor) -> Tensor:
        weight = m.dense + F.pad(m.point, [1, 1, 1, 1]) * m.scale[:, None, None, None]
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
        return F.relu(m.norm(F.conv2d(x, weight, padding=1)))

    parts = {"dense": torch.randn(8, 8, 3, 3), "point": torch.randn(8, 8, 1, 1), "scale": torch.rand(8)}
    return Net(run, **parts, norm=nn.BatchNorm2d(8))


def vanilla() -> nn.Module:
    """VanillaNet at the end of its training: the nonlinearity between two convolutions has become the identity."""
    return nn.Sequential(*same(8, 16), nn.LeakyReLU(1.0), *same(16, 16), nn.MaxPool2d(2), nn.ReLU(), *same(16, 8))


def star() -> nn.Module:
    """StarNet: two linear branches are multiplied."""

    def run(m: Net, x: Tensor) -> Tensor:
        y = m.mix(x)
        return x + m.back(m.down(F.relu6(m.one(y)) * m.two(y)))

    parts = {"mix": same(8, 8, 7, groups=8), "one": nn.Conv2d(8, 24, 1), "two": nn.Conv2d(8, 24, 1)}
    return Net(run, **parts, down=same(24, 8), back=nn.Conv2d(8, 8, 7, padding=3, groups=8))


def stacked() -> nn.Module:
    """Branches that are stacked and averaged."""
    branches = nn.ModuleList(same(8, 8, k) for k in (1, 3, 5))
    return Net(lambda m, x: F.relu(torch.stack([b(x) for b in m.branches]).mean(0)), branches=branches)


def cross_stage() -> nn.Module:
    """CSPNet: half of the channels go around."""

    def run(m: Net, x: Tensor) -> Tensor:
        around, through = F.silu(m.split(x)).chunk(2, 1)
        return F.silu(m.join(torch.cat([around, through + F.silu(m.block(through))], 1)))

    return Net(run, split=same(8, 16), block=same(8, 8, 3), join=same(16, 8))


def shuffled_halves() -> nn.Module:
    """ShuffleNetV2: half of the channels go around and are shuffled in."""

    def run(m: Net, x: Tensor) -> Tensor:
        around, through = x.chunk(2, 1)
        y = torch.cat([around, m.block(through)], 1)
        n, c, h, w = y.shape
        return F.relu(m.last(y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)))

    block = nn.Sequential(*same(4, 4), nn.ReLU(), *same(4, 4, 3, groups=4))
    return Net(run, block=block, last=same(8, 8))


def unet() -> nn.Module:
    """A U-Net level with re-parameterized blocks and a normed transposed convolution."""

    def run(m: Net, x: Tensor) -> Tensor:
        skip = F.relu(m.enter(x))
        up = F.relu(m.up(F.relu(m.deep(F.max_pool2d(skip, 2)))))
        both = torch.cat([skip, up], 1)
        return m.head(F.relu(m.dense(both) + m.point(both)))

    up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2, groups=4), nn.BatchNorm2d(8))
    parts = {"enter": same(8, 8, 3), "deep": same(8, 16, 3), "dense": same(16, 8, 3), "point": same(16, 8)}
    return Net(run, **parts, up=up, head=nn.Conv2d(8, 2, 1))


def subpixel() -> nn.Module:
    """A norm after a pixel shuffle, a 1x1 after an upsampling."""
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(
        *same(8, 12, 3), nn.PixelShuffle(2), nn.BatchNorm2d(3), nn.ReLU(), *same(3, 8, 3), up, *same(8, 4), nn.ReLU()
    )


def volumes() -> nn.Module:
    """Three axes: a cube, a plane and a line."""
    shapes = [(3, 3, 3), (1, 3, 3), (3, 1, 1)]
    branches = nn.ModuleList(
        nn.Sequential(
            nn.Conv3d(4, 4, shape, padding=(shape[0] // 2, shape[1] // 2, shape[2] // 2), bias=False), nn.BatchNorm3d(4)
        )
        for shape in shapes
    )
    return Net(lambda m, x: F.relu(sum(b(x) for b in m.branches) + x), branches=branches)


def signals() -> nn.Module:
    """One axis: dilated branches and a norm."""

    def branch(kernel: int, dilation: int) -> nn.Module:
        padding = dilation * (kernel // 2)
        conv = nn.Conv1d(8, 8, kernel, padding=padding, dilation=dilation, bias=False)
        return nn.Sequential(conv, nn.BatchNorm1d(8))

    parts = {"a": branch(5, 1), "b": branch(3, 2), "skip": nn.BatchNorm1d(8)}
    return Net(lambda m, x: F.relu(m.a(x) + m.b(x) + m.skip(x)), **parts)


def heads() -> nn.Module:
    """Two outputs, one from the middle; the other through a normed linear layer."""

    def run(m: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        middle = F.relu(m.first(x) + x)
        return m.side(middle), m.last(m.norm(m.linear(F.adaptive_avg_pool2d(middle, 1).flatten(1))))

    parts = {"first": same(8, 8, 3), "side": same(8, 3), "linear": nn.Linear(8, 16), "last": nn.Linear(16, 5)}
    return Net(run, **parts, norm=nn.BatchNorm1d(16))


UNSEEN: dict[str, Family] = {
    "learnable-affine": Family(learnable_affine, 2),
    "gated-branches": Family(gated_branches, 1),
    "quantization-aware": Family(quantization_aware, 1),
    "computed-weights": Family(computed_weights, 1),
    "vanilla": Family(vanilla, 2),
    "star": Family(star, 5),
    "stacked": Family(stacked, 1),
    "cross-stage": Family(cross_stage, 3),
    "shuffled-halves": Family(shuffled_halves, 3),
    "unet": Family(unet, 5, (2, 8, 12, 14)),
    "subpixel": Family(subpixel, 2),
    "volumes": Family(volumes, 1, (1, 4, 5, 7, 6)),
    "signals": Family(signals, 1, (2, 8, 21)),
    "heads": Family(heads, 2),
}
