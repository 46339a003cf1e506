"""RepVGG and MobileOne in their training forms, and as their authors deploy them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """ReLU of `count` equal convolutions, a 1x1 beside a larger kernel, and the identity, each with batch norm.

    MobileOne's block (arXiv 2206.04040); with one branch of 3x3 it is RepVGG's (arXiv 2101.03697).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, count: int = 1) -> None:
        super().__init__()
        kernels = [kernel] * count + ([1] if kernel > 1 else [])
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c_in, c_out, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(c_out))
            for k in kernels
        )
        self.identity = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, c_in, H, W) to (N, c_out, H / stride, W / stride)."""
        y: Tensor = self.branches[0](x)
        for branch in self.branches[1:]:
            y = y + branch(x)
        return torch.relu(y if self.identity is None else y + self.identity(x))


def repvgg(depths: tuple[int, ...], widths: tuple[int, ...]) -> Iterator[nn.Module]:
    """Stages of RepVGG blocks, each stage halving the size.

    Args:
        depths: Blocks per stage.
        widths: Channels per stage.
    """
    channels = 3
    for depth, width in zip(depths, widths, strict=True):
        for index in range(depth):
            yield Branches(channels, width, 3, stride=1 if index else 2)
            channels = width


def mobileone(depths: tuple[int, ...], widths: tuple[int, ...], count: int) -> Iterator[nn.Module]:
    """A stem and stages of MobileOne blocks: depthwise 3x3, then 1x1, each of several branches."""
    channels = widths[0]
    yield Branches(3, channels, 3, stride=2)
    for depth, width in zip(depths, widths, strict=True):
        for index in range(depth):
            yield Branches(channels, channels, 3, stride=1 if index else 2, groups=channels, count=count)
            yield Branches(channels, width, 1, count=count)
            channels = width


def classifier(blocks: Iterator[nn.Module], channels: int) -> nn.Module:
    """Blocks, then the mean over the map and 1000 classes."""
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def settled(network: nn.Module) -> nn.Module:
    """The network with norms that differ, and that have seen its own activations: random ones let it die out."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.5, 0.5, generator=generator)
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(4, 3, 96, 96, generator=generator))
    return network.eval()


def deployed(network: nn.Module) -> nn.Module:
    """The same network with every block as its authors deploy it: one convolution and the ReLU."""
    plain = (_plain(module) if isinstance(module, Branches) else module for module in network.children())
    return nn.Sequential(*plain).eval()


def _plain(block: Branches) -> nn.Module:
    """Sum of the branches' kernels and biases, norms folded, in double precision; the first branch has the largest."""
    pairs = [cast("tuple[nn.Conv2d, nn.BatchNorm2d]", tuple(branch.children())) for branch in block.branches]
    plain = copy.deepcopy(pairs[0][0])
    kernel = torch.zeros_like(plain.weight, dtype=torch.float64)
    bias = torch.zeros(plain.out_channels, dtype=torch.float64)
    for conv, norm in pairs:
        _add(kernel, bias, conv.weight, norm)
    if block.identity is not None:
        identity = torch.zeros(*kernel.shape[:2], 1, 1)
        for channel in range(plain.out_channels):
            identity[channel, channel % identity.shape[1]] = 1
        _add(kernel, bias, identity, block.identity)
    plain.weight = nn.Parameter(kernel.float())
    plain.bias = nn.Parameter(bias.float())
    return nn.Sequential(plain, nn.ReLU())


def _add(kernel: Tensor, bias: Tensor, weight: Tensor, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101 - for the type checker
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    margin = (kernel.shape[-1] - weight.shape[-1]) // 2
    inner = slice(margin, margin + weight.shape[-1])
    kernel[:, :, inner, inner] += (weight.double() * scale.view(-1, 1, 1, 1)).detach()
    bias += (norm.bias.double() - norm.running_mean.double() * scale).detach()
