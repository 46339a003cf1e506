"""Small networks as people train them, with statistics that no batch norm leaves at their defaults."""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEIGHT, WIDTH = 64, 96


class Block(nn.Module):
    """RepVGG's: 3x3, 1x1 and identity, each with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.point = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x) + self.point(x)
        return torch.relu(y if self.identity is None else y + self.identity(x))


class Backbone(nn.Sequential):
    def __init__(self, width: int = 16) -> None:
        super().__init__(
            Block(3, width, 2), Block(width, width), Block(width, 2 * width, 2), Block(2 * width, 2 * width)
        )


class Classifier(nn.Module):
    """One tensor in, one out."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(32, classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(image).mean((2, 3)))
        return logits


class Detector(nn.Module):
    """Peaks of a heatmap with boxes, decoded in the graph: a dict of outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.heat = nn.Conv2d(32, 4, 1)
        self.size = nn.Conv2d(32, 4, 1)
        nn.init.normal_(self.size.weight, std=0.01)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = self.backbone(image)
        heat = torch.sigmoid(self.heat(features))
        rows, columns = heat.shape[2:]
        peaks = heat * (heat == nn.functional.max_pool2d(heat, 3, 1, 1)).to(heat.dtype)
        scores, index = torch.topk(peaks.flatten(1), 16)
        cell = index % (rows * columns)
        centre = torch.stack([(cell % columns).float(), (cell // columns).float()], -1) * 4.0 + 2.0
        sizes = torch.exp(self.size(features).flatten(2)) * 8.0
        picked = torch.gather(sizes, 2, cell[:, None].expand(-1, 4, -1)).transpose(1, 2)
        boxes = torch.cat([centre - picked[..., :2], centre + picked[..., 2:]], -1)
        classes = torch.div(index, rows * columns, rounding_mode="trunc")
        return {"scores": scores, "classes": classes, "boxes": boxes, "heat": heat}


class TwoInputs(nn.Module):
    """Two tensors in, a tuple out."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)

    def forward(self, image: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.relu(self.left(image)) + torch.relu(self.right(depth))
        return both, both.mean((2, 3))


class Nested(nn.Module):
    def forward(self, image: Tensor) -> list[list[Tensor]]:
        return [[image]]


class Unexportable(nn.Module):
    """Uses an operator that ONNX has no equivalent of."""

    def forward(self, image: Tensor) -> Tensor:
        return torch.special.i1e(image)


def settled(network: nn.Module) -> nn.Module:
    """Give batch norms the statistics of some training."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, std=0.2, generator=generator)
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.3, generator=generator)
            nn.init.uniform_(module.running_var, 0.5, 2.0, generator=generator)
    return network.eval()


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return settled(Classifier())


def detector() -> nn.Module:
    torch.manual_seed(0)
    return settled(Detector())


def two_inputs() -> nn.Module:
    torch.manual_seed(0)
    return TwoInputs()


def nested() -> nn.Module:
    return Nested()


def unexportable() -> nn.Module:
    return Unexportable()


class Deciding(nn.Module):
    """What it computes depends on what is in the frame."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image: Tensor) -> Tensor:
        y: Tensor = self.conv(image)
        if y.mean() > 0:
            y = 2 * y
        return y


def deciding() -> nn.Module:
    return Deciding()


def unlicensed() -> nn.Module:
    raise SystemExit("no licence")


def needs_argument(width: int) -> nn.Module:
    raise AssertionError(width)


NOT_A_MODEL = 3
