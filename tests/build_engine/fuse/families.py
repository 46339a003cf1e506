"""Published re-parameterizable networks in their training forms, as their papers write them.

Each is small, and each ends where its paper's block ends. `FAMILIES` says how many convolutions the paper's own
deploy form of the same block has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Family:
    """A block in training form, and what its deploy form looks like."""

    make: Callable[[], nn.Module]
    deploy_convolutions: int
    input_shape: tuple[int, ...] = (2, 8, 11, 13)


def conv_bn(c_in: int, c_out: int, kernel: int | tuple[int, int], **kwargs: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, bias=False, **kwargs), nn.BatchNorm2d(c_out))  # type: ignore[arg-type]


class RepVGG(nn.Module):
    """RepVGG: 3x3, 1x1 and identity, each with batch norm (arXiv 2101.03697)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.dense = conv_bn(c_in, c_out, 3, stride=stride, padding=1, groups=groups)
        self.point = conv_bn(c_in, c_out, 1, stride=stride, groups=groups)
        self.skip = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.point(x)
        return F.relu(y if self.skip is None else y + self.skip(x))


class MobileOneBranches(nn.Module):
    """MobileOne: over-parameterized branches, a scale branch and a batch-norm shortcut (arXiv 2206.04040)."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, branches: int = 4, act: bool = True
    ) -> None:
        super().__init__()
        self.skip = nn.BatchNorm2d(c_in) if c_in == c_out and stride == 1 else None
        self.convs = nn.ModuleList(
            conv_bn(c_in, c_out, kernel, stride=stride, padding=kernel // 2, groups=groups) for _ in range(branches)
        )
        self.scale = conv_bn(c_in, c_out, 1, stride=stride, groups=groups) if kernel > 1 and branches else None
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor | float = 0 if self.skip is None else self.skip(x)
        if self.scale is not None:
            out = out + self.scale(x)
        for conv in self.convs:
            out = out + conv(x)
        result: Tensor = self.act(out)
        return result


class ACBlock(nn.Module):
    """ACNet: a square kernel strengthened by its skeleton (arXiv 1908.03930)."""

    def __init__(self, c: int, stride: int = 1) -> None:
        super().__init__()
        self.square = conv_bn(c, c, 3, stride=stride, padding=1)
        self.vertical = conv_bn(c, c, (3, 1), stride=stride, padding=(1, 0))
        self.horizontal = conv_bn(c, c, (1, 3), stride=stride, padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.square(x) + self.vertical(x) + self.horizontal(x))


class BNAndPad(nn.Module):
    """DBB's batch norm whose border continues its bias, written as its authors write it."""

    def __init__(self, c: int, pad: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c)
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.bn(x)
        if self.pad > 0:
            mean, var = self.bn.running_mean, self.bn.running_var
            assert mean is not None and var is not None
            values = self.bn.bias.detach() - mean * self.bn.weight.detach() / torch.sqrt(var + self.bn.eps)
            output = F.pad(output, [self.pad] * 4)
            border = values.view(1, -1, 1, 1)
            output[:, :, 0 : self.pad, :] = border
            output[:, :, -self.pad :, :] = border
            output[:, :, :, 0 : self.pad] = border
            output[:, :, :, -self.pad :] = border
        return output


class DBB(nn.Module):
    """Diverse Branch Block: 1x1, 1x1-kxk, 1x1-average and kxk (arXiv 2103.13425)."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        pad = kernel // 2
        self.origin = conv_bn(c_in, c_out, kernel, stride=stride, padding=pad)
        self.point = conv_bn(c_in, c_out, 1, stride=stride)
        self.average = nn.Sequential(
            nn.Conv2d(c_in, c_out, 1, bias=False),
            BNAndPad(c_out, pad),
            nn.AvgPool2d(kernel, stride, 0),
            nn.BatchNorm2d(c_out),
        )
        self.sequence = nn.Sequential(
            nn.Conv2d(c_in, c_in, 1, bias=False),
            BNAndPad(c_in, pad),
            nn.Conv2d(c_in, c_out, kernel, stride=stride, bias=False),
            nn.BatchNorm2d(c_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.origin(x) + self.point(x) + self.average(x) + self.sequence(x))


class QARepVGG(nn.Module):
    """QARepVGG: no norm on 1x1 and identity, one after the sum (arXiv 2212.01593)."""

    def __init__(self, c_in: int, c_out: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = conv_bn(c_in, c_out, 3, stride=stride, padding=1)
        self.point = nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.has_skip = c_in == c_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.point(x)
        return F.relu(self.bn(y + x if self.has_skip else y))


class RepLK(nn.Module):
    """RepLKNet: a large depthwise kernel with a small one beside it (arXiv 2203.06717)."""

    def __init__(self, c: int, large: int = 13, small: int = 5) -> None:
        super().__init__()
        self.large = conv_bn(c, c, large, padding=large // 2, groups=c)
        self.small = conv_bn(c, c, small, padding=small // 2, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.large(x) + self.small(x))


class DilatedReparam(nn.Module):
    """UniRepLKNet: a large depthwise kernel beside dilated small ones (arXiv 2311.15599)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.large = nn.Conv2d(c, c, 9, padding=4, groups=c, bias=False)
        self.norm = nn.BatchNorm2d(c)
        self.dilated = nn.ModuleList(
            conv_bn(c, c, k, padding=d * (k - 1) // 2, dilation=d, groups=c)
            for k, d in ((5, 1), (5, 2), (3, 3), (3, 4))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.large(x))
        for branch in self.dilated:
            out = out + branch(x)
        return F.gelu(out)


class RepMixer(nn.Module):
    """FastViT: x + scale * (mixer(x) - norm(x)) (arXiv 2303.14189)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = MobileOneBranches(c, c, 3, groups=c, branches=0, act=False)
        self.mixer = MobileOneBranches(c, c, 3, groups=c, branches=1, act=False)
        self.layer_scale = nn.Parameter(torch.rand(c, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer_scale * (self.mixer(x) - self.norm(x))


class RepViTBlock(nn.Module):
    """RepViT's token mixer: norm(conv3(x) + conv1(x) + x), depthwise, then a channel mixer (arXiv 2307.09283)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = conv_bn(c, c, 3, padding=1, groups=c)
        self.conv1 = nn.Conv2d(c, c, 1, groups=c)
        self.bn = nn.BatchNorm2d(c)
        self.up, self.down = conv_bn(c, 2 * c, 1), conv_bn(2 * c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.bn(self.conv(x) + self.conv1(x) + x))
        return x + self.down(F.gelu(self.up(x)))


class RepGhost(nn.Module):
    """RepGhost module: a depthwise convolution beside a norm, instead of a concatenation (arXiv 2211.06088)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.primary = nn.Sequential(conv_bn(c_in, c_out, 1), nn.ReLU())
        self.cheap = conv_bn(c_out, c_out, 3, padding=1, groups=c_out)
        self.fusion = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary(x)
        return F.relu(self.cheap(x) + self.fusion(x))


class RepConv(RepVGG):
    """YOLOv6 and YOLOv7's RepConv: RepVGG with SiLU (arXiv 2209.02976, 2207.02696)."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x) + self.point(x)
        return F.silu(y if self.skip is None else y + self.skip(x))


class SeqConv(nn.Module):
    """ECB's 1x1 then 3x3, learned or an edge filter, with the 1x1's bias as padding (ACM MM 2021)."""

    def __init__(self, kind: str, c_in: int, c_out: int, multiplier: int = 2) -> None:
        super().__init__()
        self.kind = kind
        mid = c_out * multiplier if kind == "conv" else c_out
        self.first = nn.Conv2d(c_in, mid, 1)
        if kind == "conv":
            self.second = nn.Conv2d(mid, c_out, 3)
        else:
            mask = torch.zeros(c_out, 1, 3, 3)
            values = {
                "sobelx": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
                "sobely": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
                "laplacian": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
            }[kind]
            mask[:, 0] = torch.tensor(values, dtype=torch.float32)
            self.mask = nn.Parameter(mask, requires_grad=False)
            self.scale = nn.Parameter(torch.randn(c_out, 1, 1, 1) * 1e-1)
            self.bias = nn.Parameter(torch.randn(c_out) * 1e-1)

    def forward(self, x: Tensor) -> Tensor:
        y0 = F.pad(self.first(x), (1, 1, 1, 1), "constant", 0)
        b0 = self.first.bias.view(1, -1, 1, 1)
        y0[:, :, 0:1, :] = b0
        y0[:, :, -1:, :] = b0
        y0[:, :, :, 0:1] = b0
        y0[:, :, :, -1:] = b0
        if self.kind == "conv":
            result: Tensor = self.second(y0)
            return result
        return F.conv2d(y0, self.scale * self.mask, self.bias, groups=self.mask.shape[0])


class ECB(nn.Module):
    """Edge-oriented convolution block: 3x3, 1x1-3x3, Sobel, Laplacian and identity (ACM MM 2021)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, c, 3, padding=1)
        self.branches = nn.ModuleList(SeqConv(kind, c, c) for kind in ("conv", "sobelx", "sobely", "laplacian"))
        self.act = nn.PReLU(c)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        for branch in self.branches:
            y = y + branch(x)
        result: Tensor = self.act(y + x)
        return result


class ExpandNet(nn.Module):
    """ExpandNets' CK: 1x1 up, kxk, 1x1 down, all linear (arXiv 1811.10495)."""

    def __init__(self, c_in: int, c_out: int, rate: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.up = nn.Conv2d(c_in, rate * c_in, 1, bias=False)
        self.conv = nn.Conv2d(rate * c_in, rate * c_out, kernel, padding=kernel // 2, bias=False)
        self.down = nn.Conv2d(rate * c_out, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.down(self.conv(self.up(x))))


class Strips(nn.Module):
    """SegNeXt's strips without bias: 5x5, then 1x7 and 7x1 beside it (arXiv 2209.08575)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.base = nn.Conv2d(c, c, 5, padding=2, groups=c, bias=False)
        self.row = nn.Conv2d(c, c, (1, 7), padding=(0, 3), groups=c, bias=False)
        self.column = nn.Conv2d(c, c, (7, 1), padding=(3, 0), groups=c, bias=False)
        self.mix = nn.Conv2d(c, c, 1)

    def forward(self, x: Tensor) -> Tensor:
        attention = F.relu(self.base(x))
        return x * self.mix(attention + self.column(self.row(attention)))


class Focus(nn.Module):
    """YOLOv5's stem: four phases side by side, then 3x3; one 6x6 with stride 2."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = conv_bn(4 * c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        phases = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
        return F.silu(self.conv(torch.cat(phases, 1)))


class PixelUnshuffleStem(nn.Module):
    """The same stem through PixelUnshuffle."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.shuffle = nn.PixelUnshuffle(2)
        self.conv = conv_bn(4 * c_in, c_out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(self.shuffle(x)))


class ShuffledGroups(nn.Module):
    """ShuffleNet's unit: grouped 1x1, channel shuffle, depthwise 3x3, grouped 1x1 (arXiv 1707.01083)."""

    def __init__(self, c: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv_bn(c, c, 1, groups=groups)
        self.spatial = conv_bn(c, c, 3, padding=1, groups=c)
        self.expand = conv_bn(c, c, 1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce(x))
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return F.relu(x + self.expand(F.relu(self.spatial(y))))


class PartialConv(nn.Module):
    """FasterNet's partial convolution: a quarter of the channels, the rest untouched (arXiv 2303.03667)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.part = c // 4
        self.conv = nn.Conv2d(self.part, self.part, 3, padding=1, bias=False)
        self.up = conv_bn(c, 2 * c, 1)
        self.down = nn.Conv2d(2 * c, c, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        one, two = x[:, : self.part], x[:, self.part :]
        mixed = torch.cat((self.conv(one), two), 1)
        return x + self.down(F.relu(self.up(mixed)))


FAMILIES: dict[str, Family] = {
    "repvgg": Family(lambda: nn.Sequential(RepVGG(3, 8, 2), RepVGG(8, 8), RepVGG(8, 8, groups=2)), 3, (2, 3, 11, 13)),
    "mobileone": Family(lambda: nn.Sequential(MobileOneBranches(8, 8, 3, groups=8), MobileOneBranches(8, 12, 1)), 2),
    "acnet": Family(lambda: nn.Sequential(ACBlock(8), ACBlock(8, 2)), 2),
    "dbb": Family(lambda: nn.Sequential(DBB(8, 8), DBB(8, 12, stride=2)), 2),
    "qarepvgg": Family(lambda: nn.Sequential(QARepVGG(8, 8), QARepVGG(8, 12, 2)), 2),
    "replknet": Family(lambda: RepLK(8), 1),
    "unireplknet": Family(lambda: DilatedReparam(8), 1),
    "repmixer": Family(lambda: RepMixer(8), 1),
    "repvit": Family(lambda: RepViTBlock(8), 3),
    "repghost": Family(lambda: RepGhost(8, 8), 2),
    "repconv": Family(lambda: nn.Sequential(RepConv(8, 8), RepConv(8, 12, 2)), 2),
    "ecb": Family(lambda: nn.Sequential(ECB(8), ECB(8)), 2),
    "expandnets": Family(lambda: ExpandNet(8, 8), 1),
    "strips": Family(lambda: Strips(8), 3),
    "focus": Family(lambda: Focus(3, 8), 1, (2, 3, 12, 14)),
    "pixel-unshuffle": Family(lambda: PixelUnshuffleStem(3, 8), 1, (2, 3, 12, 14)),
    "shuffle": Family(lambda: ShuffledGroups(8, 2), 3),
    "fasternet": Family(lambda: PartialConv(8), 3),
}
