"""Pictures for people: boxes, distances and drivable area drawn over frames, and mosaics of six cameras."""

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.spec import LABELS
from surround.truth import Truth

Image = NDArray[np.uint8]

COLOURS: tuple[tuple[int, int, int], ...] = ((255, 96, 80), (255, 186, 40), (80, 214, 255), (140, 255, 110))
"""RGB of each label."""


def draw_boxes(
    image: Image,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    distances: NDArray[np.float32],
    faint: NDArray[np.bool_] | None = None,
) -> Image:
    """A copy of an image (H, W, 3) with boxes (M, 4) xyxy, class names and distances in metres.

    Args:
        image: RGB.
        boxes: Pixels of this image.
        labels: Indices into LABELS.
        distances: Metres.
        faint: Boxes to draw in grey and without text.
    """
    image = image.copy()
    scale = image.shape[0] / 384
    for n, (box, label) in enumerate(zip(boxes, labels, strict=True)):
        grey = faint is not None and bool(faint[n])
        colour = (130, 130, 130) if grey else COLOURS[int(label)]
        x0, y0, x1, y1 = (round(float(value)) for value in box)
        cv2.rectangle(image, (x0, y0), (x1, y1), colour, max(1, round(scale)), cv2.LINE_AA)
        if not grey:
            text = f"{LABELS[int(label)]} {distances[n]:.0f} m"
            at = (x0, max(y0 - 3, 10))
            cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36 * scale, (0, 0, 0), 2, cv2.LINE_AA)
            cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.36 * scale, colour, 1, cv2.LINE_AA)
    return image


def draw_area(image: Image, area: NDArray[np.bool_]) -> Image:
    """A copy of an image (H, W, 3) with an area, at any resolution, tinted green."""
    height, width = image.shape[:2]
    mask = cv2.resize(area.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    tint = cv2.addWeighted(image, 0.75, np.full_like(image, (0, 160, 60)), 0.25, 0)
    return np.where(mask[..., None] > 0, tint, image).astype(np.uint8)


def draw_truth(image: Image, truth: Truth) -> Image:
    """A copy of an image with its ground truth; what does not count is grey."""
    return draw_boxes(draw_area(image, truth.drivable), truth.boxes, truth.labels, truth.distances, truth.ignored)


def mosaic(images: dict[str, Image]) -> Image:
    """Six camera images by id as one: front row left, wide, right; rear row left, narrow, right."""
    rows = (("front_left", "front_wide", "front_right"), ("rear_left", "front_narrow", "rear_right"))
    return np.vstack([np.hstack([images[name] for name in row]) for row in rows])
