"""Filled shapes with soft edges and transparency, on RGB images in place."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from client.draw.palette import Color
from client.frames import Image

_SHIFT = 4  # OpenCV takes coordinates in sixteenths of a pixel


def polygon(image: Image, points: NDArray[np.float64], color: Color, opacity: float = 1.0) -> None:
    """Fill a polygon of (N, 2) points in pixels."""
    low = np.floor(points.min(0)).astype(int) - 1
    high = np.ceil(points.max(0)).astype(int) + 2
    left, top = np.maximum(low, 0)
    right, bottom = np.minimum(high, (image.shape[1], image.shape[0]))
    if left >= right or top >= bottom:
        return
    part = image[top:bottom, left:right]
    fixed = np.round((points - (left, top)) * (1 << _SHIFT)).astype(np.int32)
    mask = np.zeros(part.shape[:2], np.uint8)
    cv2.fillPoly(mask, [fixed], (255,), cv2.LINE_AA, _SHIFT)
    share = mask[..., None].astype(np.float32) * (opacity / 255)
    part[:] = np.round(part * (1 - share) + np.array(color, np.float32) * share).astype(np.uint8)


def outline(image: Image, points: NDArray[np.float64], color: Color, width_px: int = 1, closed: bool = True) -> None:
    """Draw a line through (N, 2) points in pixels."""
    fixed = np.round(points * (1 << _SHIFT)).astype(np.int32)
    cv2.polylines(image, [fixed], closed, color, width_px, cv2.LINE_AA, _SHIFT)


def rectangle(left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> NDArray[np.float64]:
    """Outline of a rectangle with rounded corners, (N, 2)."""
    radius = min(radius, (right - left) / 2, (bottom - top) / 2)
    if radius <= 0:
        return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)
    turn = np.linspace(0, np.pi / 2, 6)
    arc = radius * np.stack([np.cos(turn), np.sin(turn)], 1)
    corners = [
        (np.array([right - radius, bottom - radius]), np.array([[1, 0], [0, 1]])),
        (np.array([left + radius, bottom - radius]), np.array([[0, 1], [-1, 0]])),
        (np.array([left + radius, top + radius]), np.array([[-1, 0], [0, -1]])),
        (np.array([right - radius, top + radius]), np.array([[0, -1], [1, 0]])),
    ]
    return np.concatenate([centre + arc @ turned for centre, turned in corners])


def circle(x: float, y: float, radius: float) -> NDArray[np.float64]:
    """Outline of a circle, (N, 2)."""
    turn = np.linspace(0, 2 * np.pi, max(16, int(radius * 2)), endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], 1)
