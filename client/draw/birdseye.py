"""The surroundings from above: the vehicle, what its cameras cover, and the objects at their distances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from client.draw import palette
from client.draw.annotate import DRIVABLE, MIN_SCORE, drivable_mask
from client.draw.ground import drivable_ground
from client.draw.palette import blend, color_of
from client.draw.shapes import circle, outline, polygon, rectangle
from client.draw.text import draw_text, text_width
from client.frames import Camera, Image
from client.placing import Placed, merge, place
from client.projection import Pinhole
from client.results import Result

RINGS_M = (10, 20, 30, 40, 50, 60)
"""Distances from the vehicle's centre at which rings are drawn."""

RING_LABELS_RAD = 0.65
"""Direction in which the rings are labelled, to the right of straight ahead."""

AHEAD_M = 52.0
"""Metres of road shown in front of the vehicle."""

EGO_M = (-1.0, 3.8, 0.95)
"""The vehicle's rear end, front end and half width, in the vehicle frame."""

DISTANCE_ERROR = 0.08
"""The share of its distance by which an object's mark is drawn out along the line of sight."""

_SIZES_M: Mapping[str, float] = {"car": 1.15, "truck": 1.6, "cyclist": 0.75, "pedestrian": 0.6}


@dataclass(frozen=True)
class Canvas:
    """Maps the vehicle frame to a picture in which forward is up.

    Attributes:
        width: Columns.
        height: Rows.
        scale: Pixels per metre.
        origin: (column, row) of the vehicle frame's origin.
    """

    width: int
    height: int
    scale: float
    origin: tuple[float, float]

    @staticmethod
    def of(width: int, height: int, ahead_m: float = AHEAD_M) -> Canvas:
        """A picture that shows `ahead_m` in front of the vehicle, and half as much behind it."""
        row = height * 0.66
        return Canvas(width, height, row / ahead_m, (width / 2, row))

    def to_picture(self, x_m: float, y_m: float) -> tuple[float, float]:
        """(column, row) of a point: x forward, y left."""
        return self.origin[0] - y_m * self.scale, self.origin[1] - x_m * self.scale

    def shows(self, item: Placed) -> bool:
        """Whether an object lies inside the picture, a metre from its border."""
        column, row = self.to_picture(item.x_m, item.y_m)
        return self.scale <= column < self.width - self.scale and self.scale <= row < self.height - self.scale

    def ground(self, step_px: int) -> NDArray[np.float64]:
        """Vehicle-frame points (R, C, 2) of every `step_px`-th pixel."""
        rows = np.arange(step_px / 2, self.height, step_px)
        columns = np.arange(step_px / 2, self.width, step_px)
        forward, left = (self.origin[1] - rows) / self.scale, (self.origin[0] - columns) / self.scale
        return np.stack(np.meshgrid(forward, left, indexing="ij"), 2)


def birdseye(
    results: Mapping[str, Result],
    cameras: Iterable[Camera],
    width: int = 720,
    height: int = 1152,
    min_score: float = MIN_SCORE,
) -> Image:
    """Draw it.

    Args:
        results: The newest result of each camera, by its id.
        cameras: Those without intrinsics or mounting are left out.
        width: Columns of the picture.
        height: Rows of the picture.
        min_score: Less certain detections are left out.

    Returns:
        (height, width, 3) RGB.
    """
    canvas = Canvas.of(width, height)
    views = {camera.id: view for camera in cameras if (view := Pinhole.of(camera)) is not None}
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = palette.PANEL
    _draw_drivable(picture, canvas, views, results)
    for view in views.values():
        _draw_view(picture, canvas, view)
    _draw_rings(picture, canvas)
    _draw_ego(picture, canvas)
    placed = [
        item
        for camera_id, view in views.items()
        if camera_id in results and results[camera_id].ok
        for item in place((d for d in results[camera_id].detections if d.score >= min_score), view)
    ]
    objects = sorted((item for item in merge(placed) if canvas.shows(item)), key=lambda item: -item.distance_m)
    for item in objects:
        _draw_object(picture, canvas, item)
    _draw_distances(picture, canvas, objects)
    return picture


def _draw_drivable(picture: Image, canvas: Canvas, views: Mapping[str, Pinhole], results: Mapping[str, Result]) -> None:
    masks = []
    for camera_id, view in views.items():
        result = results.get(camera_id)
        if result is not None and result.ok and DRIVABLE in result.tensors:
            masks.append((view, drivable_mask(result, view.camera.width // 2, view.camera.height // 2)))
    if not masks:
        return
    probability = drivable_ground(masks, canvas.ground(step_px=3))
    smooth = cv2.resize(
        cv2.GaussianBlur(probability, (0, 0), 1.2), (canvas.width, canvas.height), interpolation=cv2.INTER_CUBIC
    )
    share = (np.clip((np.asarray(smooth) - 0.3) / 0.4, 0, 1) * 0.34)[..., None]
    picture[:] = np.round(picture * (1 - share) + np.array(palette.DRIVABLE) * share).astype(np.uint8)


def _draw_view(picture: Image, canvas: Canvas, view: Pinhole) -> None:
    """A camera's field of view as a wedge along the ground, fainter with distance."""
    sides = view.to_vehicle(
        np.array([(0.0, view.centre[1]), (float(view.camera.width), view.centre[1])]), np.array([1.0, 1.0])
    )
    left, right = (np.arctan2(side[1] - view.position[1], side[0] - view.position[0]) for side in sides)
    if left < right:
        left += 2 * np.pi
    tip = canvas.to_picture(view.position[0], view.position[1])
    for reach_m in (9.0, 16.0, 26.0):
        angles = np.linspace(right, left, 40)
        arc = [
            canvas.to_picture(view.position[0] + reach_m * np.cos(a), view.position[1] + reach_m * np.sin(a))
            for a in angles
        ]
        polygon(picture, np.array([tip, *arc]), palette.TEXT, 0.035)
    for angle in (left, right):
        end = canvas.to_picture(view.position[0] + 26 * np.cos(angle), view.position[1] + 26 * np.sin(angle))
        outline(picture, np.array([tip, end]), blend(palette.GRID, palette.TEXT, 0.1), closed=False)


def _draw_rings(picture: Image, canvas: Canvas) -> None:
    centre = canvas.to_picture((EGO_M[0] + EGO_M[1]) / 2, 0)
    size = max(11, round(canvas.height / 80))
    for radius_m in RINGS_M:
        outline(picture, circle(*centre, radius_m * canvas.scale), palette.GRID)
        column = centre[0] + radius_m * canvas.scale * np.sin(RING_LABELS_RAD)
        row = centre[1] - radius_m * canvas.scale * np.cos(RING_LABELS_RAD)
        text = f"{radius_m} m"
        wide = text_width(text, size)
        if column + wide < canvas.width and row > size:
            left = column - wide / 2
            chip = rectangle(left - 4, row - size * 0.7, left + wide + 4, row + size * 0.7, 4)
            polygon(picture, chip, palette.PANEL, 0.85)
            draw_text(picture, text, round(left), round(row + size * 0.36), palette.MUTED, size)


def _draw_ego(picture: Image, canvas: Canvas) -> None:
    rear, front, half = EGO_M
    left, top = canvas.to_picture(front, half)
    right, bottom = canvas.to_picture(rear, -half)
    high = bottom - top
    body = rectangle(left, top, right, bottom, (right - left) * 0.34)
    polygon(picture, body, palette.TEXT)
    inset = (right - left) * 0.14
    glass = blend(palette.INK, palette.MUTED, 0.3)
    for start, end in ((0.24, 0.38), (0.80, 0.90)):  # windscreen, rear window
        polygon(picture, rectangle(left + inset, top + high * start, right - inset, top + high * end, inset), glass)
    roof = rectangle(left + inset, top + high * 0.40, right - inset, top + high * 0.78, inset)
    polygon(picture, roof, blend(palette.TEXT, palette.MUTED, 0.35))
    outline(picture, body, palette.INK)


def _draw_object(picture: Image, canvas: Canvas, item: Placed) -> None:
    """A disc at its place, drawn out along the line of sight as far as its distance may be wrong."""
    color = color_of(item.detection.label, item.detection.class_index)
    column, row = canvas.to_picture(item.x_m, item.y_m)
    along = np.array([-np.sin(item.bearing_rad), -np.cos(item.bearing_rad)])
    across = np.array([-along[1], along[0]])
    reach = DISTANCE_ERROR * item.distance_m * canvas.scale
    centre = np.array([column, row])
    radius = _radius_px(item, canvas)
    spread = np.array([centre - along * reach, centre + along * reach])
    half = across * radius * 0.45
    polygon(picture, np.array([spread[0] - half, spread[0] + half, spread[1] + half, spread[1] - half]), color, 0.28)
    outline(picture, spread, color, max(1, round(canvas.scale / 10)), closed=False)
    polygon(picture, circle(column, row, radius + 1.5), palette.INK, 0.8)
    polygon(picture, circle(column, row, radius), color)


def _draw_distances(picture: Image, canvas: Canvas, objects: Sequence[Placed]) -> None:
    """Write each distance beside its object, nearest first; none over another."""
    size = max(11, round(canvas.height / 82))
    taken: list[tuple[float, float]] = []
    for item in reversed(objects):
        column, row = canvas.to_picture(item.x_m, item.y_m)
        text = f"{item.distance_m:.0f}"
        away = _radius_px(item, canvas) + 5
        for left in (column + away, column - away - text_width(text, size, 600)):
            if not any(abs(left - x) < size * 1.6 and abs(row - y) < size for x, y in taken):
                taken.append((left, row))
                draw_text(picture, text, round(left), round(row + size * 0.36), palette.TEXT, size, 600)
                break


def _radius_px(item: Placed, canvas: Canvas) -> float:
    return _SIZES_M.get(item.detection.label, 1.0) * canvas.scale
