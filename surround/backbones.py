"""Backbones of one interface beside the committed one, to compare what each costs and reaches.

A backbone has the four parts that `surround.model.SurroundNet` runs in turn: `stem` (stride 4), `stage8`, `stage16`
and `stage32`, with the channels that the last three give.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from surround.model import Backbone, Block, Deployed, SurroundNet, conv_norm, plain_backbone, stage

COMPARED_SIZE = (320, 192)
"""(width, height) of the network input at which backbones are compared: training them takes minutes."""


class Basic(nn.Module):
    """relu(F(x) + shortcut(x)) with F two 3x3 convolutions: ResNet's basic block (arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = conv_norm(inputs, outputs, 3, stride)
        self.second = conv_norm(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class _Branches(nn.Module):
    """ReLU of `count` equal convolutions with batch norm, a 1x1 beside a depthwise 3x3, and the identity."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int, groups: int, count: int) -> None:
        super().__init__()
        self.equal = nn.ModuleList(conv_norm(inputs, outputs, kernel_size, stride, groups) for _ in range(count))
        self.scale = conv_norm(inputs, outputs, 1, stride, groups) if kernel_size > 1 else None
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.equal[0](x)
        for branch in (*self.equal[1:], self.scale, self.identity):
            if branch is not None:
                y = y + branch(x)
        return torch.relu(y)


class Separable(nn.Sequential):
    """A depthwise 3x3 and a 1x1, each over-parameterized: MobileOne's block (arXiv 2206.04040, k = 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            _Branches(inputs, inputs, 3, stride, inputs, count=2), _Branches(inputs, outputs, 1, 1, 1, count=2)
        )


def _resnet18() -> Backbone:
    first = nn.Sequential(conv_norm(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return Backbone(
        stem=nn.Sequential(first, stage(Basic, 64, 64, 2, stride=1)),
        stage8=stage(Basic, 64, 128, 2),
        stage16=stage(Basic, 128, 256, 2),
        stage32=stage(Basic, 256, 512, 2),
        channels=(128, 256, 512),
    )


def _even(block: Callable[[int, int, int], nn.Module], blocks: int) -> Backbone:
    """ResNet-18's widths behind a stem so thin that the memory's peak lies in the stages."""
    return Backbone(
        stem=nn.Sequential(Block(3, 16, 2), stage(block, 16, 64, blocks)),
        stage8=stage(block, 64, 128, blocks),
        stage16=stage(block, 128, 256, blocks),
        stage32=stage(block, 256, 512, blocks),
        channels=(128, 256, 512),
    )


def _separable_backbone(widths: tuple[int, int, int, int]) -> Backbone:
    at4, at8, at16, at32 = widths
    return Backbone(
        stem=nn.Sequential(Block(3, at4 // 2, 2), Separable(at4 // 2, at4, 2)),
        stage8=stage(Separable, at4, at8, 2),
        stage16=stage(Separable, at8, at16, 4),
        stage32=stage(Separable, at16, at32, 2),
        channels=(at8, at16, at32),
    )


BACKBONES: dict[str, Callable[[], Backbone]] = {
    "residual": _resnet18,
    "plain": plain_backbone,
    "separable": lambda: _separable_backbone((48, 96, 192, 384)),
    "residual_even": lambda: _even(Basic, blocks=2),
    "plain_even": lambda: _even(Block, blocks=4),
}
"""`residual` is ResNet-18's; `plain` (RepVGG-like) and `separable` (MobileOne-like) are re-parameterizable. The last
two have one stem, the same widths and four convolutions per stage each: they compare memory at equal widths."""


def deployed_at_compared_size(name: str) -> Deployed:
    """The deployed module for frames (N, 3, 192, 320), with random weights, in inference mode."""
    return Deployed(SurroundNet(BACKBONES[name]()), COMPARED_SIZE).eval()
