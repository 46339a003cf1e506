"""Detections of all cameras as objects around the vehicle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from client.projection import Pinhole
from client.results import Detection

ALONG = (1.5, 0.25)
"""Two cameras' detections of one class are one object where they are no further apart along the line of sight than
this many metres, or this share of their distance: distances are estimates ..."""

ACROSS = (0.8, 0.05)
"""... and across it no further than this: directions are measured."""


@dataclass(frozen=True)
class Placed:
    """An object in the vehicle frame.

    Attributes:
        detection: The best that was seen of it.
        camera_ids: Who saw it; the best first.
        x_m: Metres forward.
        y_m: Metres to the left.
        distance_m: From the camera to the object, along the ground.
        bearing_rad: Direction in which the camera sees it, to the left positive: its distance is uncertain along it.
    """

    detection: Detection
    camera_ids: tuple[str, ...]
    x_m: float
    y_m: float
    distance_m: float
    bearing_rad: float


def place(detections: Iterable[Detection], view: Pinhole) -> list[Placed]:
    """Place one camera's detections: the centre of the box, at its distance. Those without a distance are left out."""
    known = [detection for detection in detections if detection.distance_m is not None]
    if not known:
        return []
    pixels = np.array([((d.x_min + d.x_max) / 2, (d.y_min + d.y_max) / 2) for d in known])
    depths_m = np.array([d.distance_m for d in known], np.float64)
    offsets = (view.to_vehicle(pixels, depths_m) - view.position)[:, :2]
    return [
        Placed(
            detection=detection,
            camera_ids=(view.camera.id,),
            x_m=float(view.position[0] + forward),
            y_m=float(view.position[1] + left),
            distance_m=float(np.hypot(forward, left)),
            bearing_rad=float(np.arctan2(left, forward)),
        )
        for detection, (forward, left) in zip(known, offsets, strict=True)
    ]


def merge(objects: Sequence[Placed]) -> list[Placed]:
    """One entry for what several cameras see: the best-scored stays, and says who else saw it.

    Detections of one camera are never merged: it has told them apart.
    """
    kept: list[Placed] = []
    for candidate in sorted(objects, key=lambda item: -item.detection.score):
        for index, other in enumerate(kept):
            if _is_same(candidate, other):
                kept[index] = Placed(
                    other.detection,
                    (*other.camera_ids, *candidate.camera_ids),
                    other.x_m,
                    other.y_m,
                    other.distance_m,
                    other.bearing_rad,
                )
                break
        else:
            kept.append(candidate)
    return kept


def _is_same(candidate: Placed, other: Placed) -> bool:
    if candidate.detection.class_index != other.detection.class_index:
        return False
    if set(candidate.camera_ids) & set(other.camera_ids):
        return False
    forward_m, left_m = candidate.x_m - other.x_m, candidate.y_m - other.y_m
    cos, sin = np.cos(other.bearing_rad), np.sin(other.bearing_rad)
    along_m, across_m = abs(forward_m * cos + left_m * sin), abs(left_m * cos - forward_m * sin)
    distance_m = min(candidate.distance_m, other.distance_m)
    return bool(along_m <= max(ALONG[0], ALONG[1] * distance_m) and across_m <= max(ACROSS[0], ACROSS[1] * distance_m))
