"""What training minimises."""

import torch
from torch import Tensor
from torch.nn import functional as F

from surround.model import decode_shape


def focal_loss(logits: Tensor, heat: Tensor, weight: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CornerNet (arXiv 1808.01244), per object.

    Args:
        logits: (N, 4, h, w).
        heat: (N, 4, h, w) Gaussian peaks, exactly 1 at object centres.
        weight: (N, 4, h, w) 0 where the answer does not matter.
    """
    centre = (heat >= 0.999).float()
    probability = torch.sigmoid(logits)
    hit = F.logsigmoid(logits) * (1 - probability) ** 2 * centre
    miss = F.logsigmoid(-logits) * probability**2 * (1 - heat) ** 4 * (1 - centre)
    return -((hit + miss) * weight).sum() / centre.sum().clamp(min=1)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized IoU (arXiv 1902.09630) of boxes (..., 4) xyxy, -1 to 1."""
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    overlap = (high - low).clamp(min=0).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return overlap / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def total_loss(
    answer: tuple[Tensor, Tensor, Tensor],
    grid: Tensor,
    heat: Tensor,
    weight: Tensor,
    boxes: Tensor,
    distance: Tensor,
    share: Tensor,
    drivable: Tensor,
) -> dict[str, Tensor]:
    """Weighted losses by name, with their sum as `total`. Shapes are those of `surround.batches.Batch`."""
    heat_logits, shape, road = answer
    found, metres = decode_shape(shape.clamp(-8, 8), grid)
    per_object = share.sum().clamp(min=1)
    here = share[:, 0]
    giou = 1 - generalized_iou(found.permute(0, 2, 3, 1), boxes.permute(0, 2, 3, 1))
    size, wanted = found[:, 2:] - found[:, :2], (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    log_size = F.smooth_l1_loss(size.log(), wanted.log(), reduction="none", beta=0.1).sum(1)
    log_distance = F.smooth_l1_loss(metres.log(), distance.log(), reduction="none", beta=0.1)[:, 0]
    probability = torch.sigmoid(road)
    dice = 1 - (2 * (probability * drivable).sum() + 1) / (probability.sum() + drivable.sum() + 1)
    losses = {
        "heat": focal_loss(heat_logits, heat, weight),
        "box": 2.0 * (giou * here).sum() / per_object + 0.5 * (log_size * here).sum() / per_object,
        "distance": 2.0 * (log_distance * here).sum() / per_object,
        "drivable": F.binary_cross_entropy_with_logits(road, drivable) + 0.5 * dice,
    }
    losses["total"] = torch.stack(list(losses.values())).sum()
    return losses
