"""The network: re-parameterizable blocks in training form, and the deployed module with its decoding."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from surround.spec import INPUT_SIZE, LABELS, STRIDE, TOP_K

_LOG_DISTANCE = 2.7  # exp(2.7) = 15 m: where the distance head starts
_LOG_SIZE = 1.0  # exp(1) cells = 22 px: where the size head starts


def conv_norm(inputs: int, outputs: int, kernel_size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution that keeps H / stride and W / stride, without bias, and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Block(nn.Module):
    """ReLU of a sum of branches, each with batch norm: 3x3, 1x1, depthwise 3x3 and identity.

    The last two exist where input and output have one shape (RepVGG, arXiv 2101.03697; MobileOne,
    arXiv 2206.04040). The sum equals one 3x3 convolution with bias in inference.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = conv_norm(inputs, outputs, 3, stride)
        self.point = conv_norm(inputs, outputs, 1, stride)
        same = inputs == outputs and stride == 1
        self.depthwise = conv_norm(inputs, outputs, 3, groups=inputs) if same else None
        self.identity = nn.BatchNorm2d(inputs) if same else None

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.dense(x) + self.point(x)
        if self.depthwise is not None and self.identity is not None:
            y = y + self.depthwise(x) + self.identity(x)
        return torch.relu(y)


class QuantizableBlock(nn.Module):
    """`Block` in QARepVGG's form (arXiv 2212.01593): batch norm in the dense branch and behind the sum, nowhere else.

    A batch norm in each branch lets any of them scale single channels of the fused kernel. The depthwise branch has
    none for the identity's reason: each of its outputs reads one channel.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.dense = conv_norm(inputs, outputs, 3, stride)
        self.point = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        same = inputs == outputs and stride == 1
        self.depthwise = nn.Conv2d(inputs, outputs, 3, padding=1, groups=inputs, bias=False) if same else None
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.dense(x) + self.point(x)
        if self.depthwise is not None:
            y = y + self.depthwise(x) + x
        return torch.relu(self.norm(y))


FORMS: dict[str, Callable[[int, int, int], nn.Module]] = {"repvgg": Block, "qarepvgg": QuantizableBlock}
"""Blocks by the form they are trained in: `repvgg` is the committed weights', `qarepvgg` quantizes more easily."""
DEFAULT_FORM = "repvgg"


def stage(block: Callable[[int, int, int], nn.Module], inputs: int, outputs: int, blocks: int, stride: int = 2) -> (
    nn.Sequential
):  # fmt: skip
    """`blocks` blocks in a row, the first of which has the stride and changes the channels."""
    return nn.Sequential(block(inputs, outputs, stride), *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


class Backbone(NamedTuple):
    """From frames (N, 3, H, W) to features at strides 8, 16 and 32, whose channels are `channels`.

    `stem` ends at stride 4; each part takes what the one before it gives.
    """

    stem: nn.Module
    stage8: nn.Module
    stage16: nn.Module
    stage32: nn.Module
    channels: tuple[int, int, int]


def plain_backbone(form: str = DEFAULT_FORM) -> Backbone:
    """The reference model's: one 3x3 convolution per block once it is fused."""
    block = FORMS[form]
    return Backbone(
        stem=nn.Sequential(block(3, 16, 2), block(16, 24, 2)),
        stage8=stage(block, 24, 48, 2),
        stage16=stage(block, 48, 96, 3),
        stage32=stage(block, 96, 128, 3),
        channels=(48, 96, 128),
    )


class SurroundNet(nn.Module):
    """Backbone to stride 32, features brought back to stride 8, heads for objects and drivable area.

    Args:
        backbone: None is the reference model's.
        form: A key of FORMS, for all blocks outside a backbone that is given.
    """

    def __init__(self, backbone: Backbone | None = None, form: str = DEFAULT_FORM) -> None:
        super().__init__()
        block = FORMS[form]
        self.stem, self.stage8, self.stage16, self.stage32, channels = backbone or plain_backbone(form)
        self.lateral32 = conv_norm(channels[2], 48, 1)
        self.lateral16 = conv_norm(channels[1], 48, 1)
        self.lateral8 = conv_norm(channels[0], 48, 1)
        self.merge16 = block(48, 48, 1)
        self.merge8 = block(48, 48, 1)
        self.object_features = block(48, 64, 1)
        self.heat = nn.Conv2d(64, len(LABELS), 1)
        self.shape = nn.Conv2d(64, 5, 1)
        self.road_features = block(48, 16, 1)
        self.road = nn.Conv2d(16, 1, 1)
        nn.init.constant_(self.heat.bias, -4.0)  # type: ignore[arg-type]
        nn.init.normal_(self.shape.weight, std=0.01)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Raw maps of normalised RGB frames (N, 3, H, W); H and W are multiples of 32.

        Returns:
            Heatmap logits (N, 4, H/8, W/8); shape (N, 5, H/8, W/8), see `decode_shape`;
            drivable logits (N, 1, H/8, W/8).
        """
        at8 = self.stage8(self.stem(frames))
        at16 = self.stage16(at8)
        at32 = self.stage32(at16)
        up = nn.functional.interpolate(self.lateral32(at32), scale_factor=2.0, mode="nearest")
        up = self.merge16(torch.relu(up + self.lateral16(at16)))
        up = nn.functional.interpolate(up, scale_factor=2.0, mode="nearest")
        features = self.merge8(torch.relu(up + self.lateral8(at8)))
        objects = self.object_features(features)
        return self.heat(objects), self.shape(objects), self.road(self.road_features(features))


def cell_grid(rows: int, columns: int) -> Tensor:
    """Centres of the heatmap cells in cells, (1, 2, rows, columns), x first."""
    y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    return torch.stack([x, y])[None].float()


def decode_shape(shape: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes and distances of every cell.

    Args:
        shape: (N, 5, h, w): offset of the box centre from the cell centre in cells (x, y), log of the box size in
            cells (width, height), log of the virtual distance.
        grid: (1, 2, h, w) from `cell_grid`.

    Returns:
        Boxes (N, 4, h, w), xyxy in network-input pixels, and virtual distances (N, 1, h, w) in metres.
    """
    centre = (grid + shape[:, 0:2]) * float(STRIDE)
    half = torch.exp(shape[:, 2:4] + _LOG_SIZE) * (STRIDE / 2)
    distance = torch.exp(shape[:, 4:5] + _LOG_DISTANCE)
    return torch.cat([centre - half, centre + half], 1), distance


class Deployed(nn.Module):
    """The network with peak decoding: what is exported, fused and served."""

    def __init__(self, network: SurroundNet, size: tuple[int, int] = INPUT_SIZE) -> None:
        super().__init__()
        self.network = network
        self.rows, self.columns = size[1] // STRIDE, size[0] // STRIDE
        self.register_buffer("grid", cell_grid(self.rows, self.columns), persistent=False)
        self.grid: Tensor

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        """Detections and drivable area of normalised RGB frames (N, 3, 384, 640) float32, or of the size given.

        Returns:
            scores (N, K) descending; classes (N, K) int64; boxes (N, K, 4) xyxy in network-input pixels;
            distances (N, K) virtual metres, see `surround.spec.REFERENCE_FOCAL_PX`;
            drivable (N, 1, 48, 80) probability, a cell per 8x8 pixels.
        """
        heat_logits, shape, road = self.network(frames)
        heat = torch.sigmoid(heat_logits)
        peaks = nn.functional.max_pool2d(heat, 3, 1, 1)
        heat = heat * (heat == peaks).to(heat.dtype)
        cells = self.rows * self.columns
        scores, index = torch.topk(heat.flatten(1), TOP_K, dim=1)
        # index // cells without a division: exporters route that through floats, which FP16 cannot hold.
        classes = (index >= cells).to(index.dtype)
        for label in range(2, len(LABELS)):
            classes = classes + (index >= label * cells).to(index.dtype)
        cell = index - classes * cells
        boxes, distance = decode_shape(shape, self.grid)
        values = torch.cat([boxes, distance], 1).flatten(2)  # (N, 5, h*w)
        picked = torch.gather(values, 2, cell[:, None, :].expand(-1, 5, -1)).transpose(1, 2)
        return {
            "scores": scores,
            "classes": classes,
            "boxes": picked[..., 0:4],
            "distances": picked[..., 4],
            "drivable": torch.sigmoid(road),
        }


def deployed(form: str = DEFAULT_FORM) -> Deployed:
    """The deployed module in inference mode with random weights; load a state dict with strict keys."""
    return Deployed(SurroundNet(form=form)).eval()


def deployed_qarepvgg() -> Deployed:
    """`deployed` in QARepVGG's form: what a build takes weights of `train --form qarepvgg` with."""
    return deployed("qarepvgg")


def form_of(weights: Mapping[str, Tensor]) -> str:
    """The form whose keys a state dict of the deployed module has."""
    return "qarepvgg" if "network.merge8.norm.weight" in weights else DEFAULT_FORM
