"""The drivable area seen from above: every camera's mask laid on a flat ground."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from client.projection import Pinhole

MIN_DEPTH_M = 1.0
MAX_DEPTH_M = 45.0
"""Beyond, a pixel covers metres of ground, and a slope of one degree moves it further than that."""


def drivable_ground(
    masks: Sequence[tuple[Pinhole, NDArray[np.float32]]], ground: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Probability that each ground point is drivable, by the camera that sees it nearest.

    Args:
        masks: Of each camera its drivable probability, (H, W), in any size.
        ground: (R, C, 2) points in the vehicle frame, metres.

    Returns:
        (R, C); 0 where no camera sees the ground. It fades out towards `MAX_DEPTH_M`.
    """
    rows, columns = ground.shape[:2]
    points = np.concatenate([ground.reshape(-1, 2), np.zeros((rows * columns, 1))], 1)
    best = np.full(rows * columns, np.inf)
    answer = np.zeros(rows * columns)
    for view, mask in masks:
        pixels, depths_m = view.to_pixels(points)
        across, down = mask.shape[1] / view.camera.width, mask.shape[0] / view.camera.height
        inside = (
            (depths_m > MIN_DEPTH_M)
            & (depths_m < MAX_DEPTH_M)
            & (pixels >= 0).all(1)
            & (pixels < (view.camera.width, view.camera.height)).all(1)
        )
        nearer = inside & (depths_m < best)
        at = (pixels * (across, down) - 0.5).astype(np.float32).reshape(rows, columns, 2)
        sampled = cv2.remap(mask, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        fade = np.clip((MAX_DEPTH_M - depths_m) / (MAX_DEPTH_M / 2), 0, 1)
        answer = np.where(nearer, np.asarray(sampled, np.float32).reshape(-1) * fade, answer)
        best = np.where(nearer, depths_m, best)
    return answer.reshape(rows, columns).astype(np.float32)
