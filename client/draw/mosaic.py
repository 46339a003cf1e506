"""All cameras of a vehicle, annotated, beside the bird's-eye view: one picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from client.draw import palette
from client.draw.annotate import MIN_SCORE, annotate
from client.draw.birdseye import birdseye
from client.draw.palette import color_of
from client.draw.shapes import circle, polygon
from client.draw.text import draw_text, text_width
from client.frames import Camera, Image
from client.projection import Pinhole
from client.results import Result

GAP = 10
"""Pixels between the parts."""


def mosaic(
    images: Mapping[str, Image],
    results: Mapping[str, Result],
    cameras: Iterable[Camera],
    *,
    tile_width: int = 640,
    title: str = "Monocoque",
    subtitle: str = "",
    labels: Sequence[str] = (),
    min_score: float = MIN_SCORE,
) -> Image:
    """Draw it.

    Args:
        images: (H, W, 3) RGB of each camera, by its id; a camera without one is an empty tile.
        results: The result of each of these images.
        cameras: In the order of the tiles, row by row.
        tile_width: Columns of one camera's picture.
        title: Set large in the header.
        subtitle: Set small beside it.
        labels: Classes of the legend.
        min_score: Less certain detections are left out.

    Returns:
        (H, W, 3) RGB; without the bird's-eye view where no camera's optics and place are known.
    """
    cameras = list(cameras)
    columns = 1 if len(cameras) == 1 else 2 if len(cameras) <= 6 else 3
    tile_height = max(round(tile_width * camera.height / camera.width) for camera in cameras)
    rows = -(-len(cameras) // columns)
    above = rows > 1 and any(Pinhole.of(camera) is not None for camera in cameras)
    header = round(tile_width * 0.085)
    high = rows * tile_height + (rows - 1) * GAP
    wide = columns * tile_width + (columns - 1) * GAP
    side = round(high * 0.68) if above else 0
    picture = np.empty((high + header + 2 * GAP, wide + 2 * GAP + (side + GAP if above else 0), 3), np.uint8)
    picture[:] = palette.BACKGROUND
    for index, camera in enumerate(cameras):
        top = header + GAP + index // columns * (tile_height + GAP)
        left = GAP + index % columns * (tile_width + GAP)
        tile = _tile(camera, images.get(camera.id), results.get(camera.id), tile_width, tile_height, min_score)
        picture[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    if above:
        left = wide + 2 * GAP
        picture[header + GAP : header + GAP + high, left : left + side] = birdseye(
            results, cameras, side, high, min_score
        )
    _draw_header(picture, header, title, subtitle, labels)
    return picture


def _tile(
    camera: Camera, image: Image | None, result: Result | None, width: int, height: int, min_score: float
) -> Image:
    tile = np.empty((height, width, 3), np.uint8)
    tile[:] = palette.PANEL
    if image is None or result is None:
        draw_text(tile, f"{camera.id}: no result", 16, height // 2, palette.MUTED, max(12, width // 36))
        return tile
    annotated = annotate(image, result, camera.id.replace("_", " "), min_score)
    high = round(width * camera.height / camera.width)
    scaled = cv2.resize(annotated, (width, high), interpolation=cv2.INTER_AREA)
    tile[:high] = np.asarray(scaled, np.uint8)[:height]
    return tile


def _draw_header(picture: Image, height: int, title: str, subtitle: str, labels: Sequence[str]) -> None:
    size = round(height * 0.52)
    baseline = GAP + round(height * 0.62)
    draw_text(picture, title, 2 * GAP, baseline, palette.TEXT, size, 700)
    left = 2 * GAP + text_width(title, size, 700) + size
    small = round(size * 0.62)
    draw_text(picture, subtitle, left, baseline, palette.MUTED, small)
    right = picture.shape[1] - 2 * GAP
    for index in reversed(range(len(labels))):
        right -= text_width(labels[index], small)
        draw_text(picture, labels[index], right, baseline, palette.TEXT, small)
        right -= small
        polygon(
            picture, circle(right + small * 0.35, baseline - small * 0.32, small * 0.32), color_of(labels[index], index)
        )
        right -= small
