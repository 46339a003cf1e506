"""What is truly in a rendered frame, and which of it counts."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.spec import INPUT_SIZE, MAX_DISTANCE_M, MIN_BOX_HEIGHT_PX, MIN_DISTANCE_M, MIN_VISIBLE

MASK_SCALE = 2
"""The drivable mask has one cell per MASK_SCALE x MASK_SCALE image pixels."""


@dataclass(frozen=True)
class Truth:
    """Ground truth of one frame of one camera.

    A box surrounds the whole silhouette of an object, hidden parts included, cut at the image's border.
    An object *counts* when its box is at least MIN_BOX_HEIGHT_PX high (scaled to the network input's height),
    at least MIN_VISIBLE of its silhouette is visible, and its distance is from MIN_DISTANCE_M to MAX_DISTANCE_M.
    Others are listed with `ignored` true: finding one is neither right nor wrong.

    Attributes:
        boxes: (M, 4) xyxy in continuous pixels.
        labels: (M,) indices into LABELS.
        distances: (M,) forward depth in metres of the centre of the object's 3D box, along the optical axis.
        visible: (M,) share of the silhouette that is inside the image and not hidden, 0 to 1.
        ignored: (M,) True for objects that do not count.
        actors: (M,) identity of each object in its scene.
        drivable: (ceil(H / 2), ceil(W / 2)) True where the road surface is visible and a vehicle may drive.
    """

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    distances: NDArray[np.float32]
    visible: NDArray[np.float32]
    ignored: NDArray[np.bool_]
    actors: NDArray[np.int64]
    drivable: NDArray[np.bool_]


def ignored_rule(
    boxes: NDArray[np.float32],
    distances: NDArray[np.float32],
    visible: NDArray[np.float32],
    image_height: int,
) -> NDArray[np.bool_]:
    """Which objects do not count, (M,): too low, too hidden, too far or too near."""
    height = (boxes[:, 3] - boxes[:, 1]) * INPUT_SIZE[1] / image_height
    counts = (
        (height >= MIN_BOX_HEIGHT_PX)
        & (visible >= MIN_VISIBLE)
        & (distances <= MAX_DISTANCE_M)
        & (distances >= MIN_DISTANCE_M)
    )
    return ~counts


def claim(owners: NDArray[np.int32], outline: NDArray[np.float64], owner: int) -> int:
    """Mark what an outline hides in a map of who is visible where.

    Args:
        owners: (ceil(H / 2), ceil(W / 2)) who is visible: an actor's id, 0 for other things, -1 for drivable road.
        outline: (N, 2) pixels whose convex hull is filled.
        owner: The new value.

    Returns:
        How many cells it took.
    """
    if not len(outline):
        return 0
    hull = cv2.convexHull(((outline / MASK_SCALE - 0.5) * 16).round().astype(np.int32))
    x0, y0 = (hull[:, 0].min(0) // 16 - 1).clip(0)
    x1, y1 = hull[:, 0].max(0) // 16 + 2
    if x0 >= owners.shape[1] or y0 >= owners.shape[0] or x1 <= 0 or y1 <= 0:
        return 0
    cv2.fillConvexPoly(owners, hull, owner, cv2.LINE_8, 4)
    return int(np.count_nonzero(owners[y0:y1, x0:x1] == owner))
