"""A camera's picture with what was found in it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from client.draw import palette
from client.draw.palette import Color, blend, color_of
from client.draw.shapes import outline, polygon, rectangle
from client.draw.text import draw_text, text_width
from client.frames import Image
from client.results import Detection, Result

MIN_SCORE = 0.35
"""Less certain detections are not drawn."""

DRIVABLE = "drivable"
"""Name of the dense output that is laid over the road, a probability per cell."""


def annotate(image: Image, result: Result, title: str = "", min_score: float = MIN_SCORE) -> Image:
    """Draw boxes with class and distance, and the drivable area where the result has it.

    Args:
        image: (H, W, 3) RGB; stays as it is.
        result: Of this image.
        title: Written into the upper left corner.
        min_score: Less certain detections are left out.
    """
    picture: Image = image.copy()
    scale = image.shape[0] / 384
    if DRIVABLE in result.tensors:
        _lay_over(picture, drivable_mask(result, image.shape[1], image.shape[0]))
    found = [detection for detection in result.detections if detection.score >= min_score]
    # Nearest last, so that it lies on top; its label is placed first, so that it has the best spot.
    found.sort(key=lambda detection: detection.y_max)
    for detection in found:
        _draw_box(picture, detection, scale)
    taken: list[tuple[int, int, int, int]] = []
    if title:
        taken.append(_draw_chip(picture, title, 8, 8, palette.INK, palette.TEXT, round(14 * scale) + 2, 0.7))
    for detection in reversed(found):
        _draw_label(picture, detection, scale, taken)
    if not result.ok:
        words = result.status.upper() if result.status != "ok" else "INVALID"
        _draw_chip(
            picture, words, 8, image.shape[0] - round(34 * scale), palette.BAD, palette.INK, round(16 * scale), 1
        )
    return picture


def drivable_mask(result: Result, width: int, height: int) -> NDArray[np.float32]:
    """The drivable area's probability for each pixel, (H, W)."""
    cells = np.squeeze(np.asarray(result.tensors[DRIVABLE], np.float32))
    if cells.ndim != 2:
        return np.zeros((height, width), np.float32)
    resized = cv2.resize(np.clip(cells, 0, 1), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(resized, np.float32)


def _lay_over(picture: Image, probability: NDArray[np.float32]) -> None:
    # A soft edge of the area, then a fine line along it.
    share = (np.clip((probability - 0.35) / 0.3, 0, 1) * 0.3)[..., None]
    picture[:] = np.round(picture * (1 - share) + np.array(palette.DRIVABLE, np.float32) * share).astype(np.uint8)
    contours, _ = cv2.findContours((probability > 0.5).astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    edge = blend(palette.DRIVABLE, palette.TEXT, 0.2)
    for contour in contours:
        points = contour.reshape(-1, 2).astype(np.float64)
        inner = _is_inside(points, picture)
        # Only where the area itself ends, not where the picture does.
        for run in np.split(points, np.flatnonzero(np.diff(inner.astype(np.int8))) + 1):
            if len(run) > 20 and _is_inside(run, picture).all():
                outline(picture, run[::3], edge, closed=False)


def _is_inside(points: NDArray[np.float64], picture: Image) -> NDArray[np.bool_]:
    """Which of the points (N, 2) are not at the picture's border."""
    inside = (points > 1) & (points < (picture.shape[1] - 2, picture.shape[0] - 2))
    return np.asarray(inside.all(-1))


def _draw_box(picture: Image, detection: Detection, scale: float) -> None:
    color = color_of(detection.label, detection.class_index)
    corners = rectangle(detection.x_min, detection.y_min, detection.x_max, detection.y_max, 3 * scale)
    width = max(1, round(1.6 * scale))
    polygon(picture, corners, color, 0.10)
    outline(picture, corners, blend(color, palette.INK, 0.75), width + 2)
    outline(picture, corners, color, width)


def _draw_label(picture: Image, detection: Detection, scale: float, taken: list[tuple[int, int, int, int]]) -> None:
    """Write class and distance near the box, where no other label is; a small box goes without rather than over one."""
    text = detection.label or str(detection.class_index)
    text += f" {detection.distance_m:.0f} m" if detection.distance_m is not None else f" {detection.score:.0%}"
    size = max(10, round(12 * scale))
    width, height = _chip_size(text, size)
    left = round(min(max(detection.x_min - 1, 1), picture.shape[1] - width - 1))
    spots = (detection.y_min - height, detection.y_max, detection.y_min + 1)
    for top in (round(spot) for spot in spots):
        box = (left, top, left + width, top + height)
        if top >= 1 and box[3] < picture.shape[0] and not any(_overlap(box, other) for other in taken):
            color = color_of(detection.label, detection.class_index)
            taken.append(_draw_chip(picture, text, left, top, color, palette.INK, size, 0.92))
            return


def _chip_size(text: str, size_px: int) -> tuple[int, int]:
    return text_width(text, size_px, 600) + round(size_px * 0.7), round(size_px * 1.35)


def _draw_chip(
    picture: Image, text: str, left: int, top: int, ground: Color, ink: Color, size_px: int, opacity: float
) -> tuple[int, int, int, int]:
    width, height = _chip_size(text, size_px)
    polygon(picture, rectangle(left, top, left + width, top + height, size_px * 0.3), ground, opacity)
    draw_text(picture, text, left + round(size_px * 0.35), top + round(size_px * 1.02), ink, size_px, 600)
    return left, top, left + width, top + height


def _overlap(box: Sequence[int], other: Sequence[int]) -> bool:
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]
