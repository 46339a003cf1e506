"""Detections of several cameras as one list of objects around the vehicle.

Vehicle frame: x forward, y left, z up, metres; a camera's: x right, y down, z along the optical axis. A detection is
placed at the centre of its box, at its distance along the axis (pinhole camera, no distortion).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from engine.postprocess import Detections
from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1.result_pb2 import VehicleObject

Array = npt.NDArray[np.float64]

ALONG = (1.5, 0.25)
"""Two cameras' detections of one class are one object where they are no further apart along the line of sight than
this many metres, or this share of their distance: distances are estimates ..."""
ACROSS = (0.8, 0.05)
"""... and across it no further than this: directions are measured."""


@dataclass(frozen=True)
class View:
    """A camera whose optics and place are known.

    Attributes:
        camera_id: Its name.
        rotation: From vehicle to camera axes, (3, 3).
        position: Of the pinhole, vehicle frame, (3,).
        focal: (fx, fy) in pixels.
        centre: (cx, cy) in pixels.
    """

    camera_id: str
    rotation: Array
    position: Array
    focal: Array
    centre: Array

    @classmethod
    def of(cls, camera: camera_pb2.Camera) -> View | None:
        """The geometry of a camera; None where its optics or its place are not known."""
        optics, place = camera.intrinsics, camera.mounting
        known = camera.HasField("intrinsics") and camera.HasField("mounting")
        if not known or min(optics.fx_px, optics.fy_px) <= 0:
            return None
        return cls(
            camera_id=camera.id,
            rotation=_rotation(place.yaw_rad, place.pitch_rad, place.roll_rad),
            position=np.array([place.x_m, place.y_m, place.z_m]),
            focal=np.array([optics.fx_px, optics.fy_px]),
            centre=np.array([optics.cx_px, optics.cy_px]),
        )


@dataclass(frozen=True)
class Placed:
    """An object in the vehicle frame.

    Attributes:
        class_index: Index into the engine's labels.
        score: 0 to 1.
        x_m: Metres forward.
        y_m: Metres to the left.
        distance_m: From the camera, along the ground.
        bearing_rad: Direction in which the camera sees it, to the left positive.
        camera_ids: Who saw it, the best first.
    """

    class_index: int
    score: float
    x_m: float
    y_m: float
    distance_m: float
    bearing_rad: float
    camera_ids: tuple[str, ...]

    def message(self, labels: Sequence[str]) -> VehicleObject:
        """As it goes over the wire."""
        return VehicleObject(
            class_index=max(0, self.class_index),
            label=labels[self.class_index] if 0 <= self.class_index < len(labels) else "",
            score=self.score,
            x_m=self.x_m,
            y_m=self.y_m,
            distance_m=self.distance_m,
            bearing_rad=self.bearing_rad,
            camera_ids=self.camera_ids,
        )


def place(found: Detections, view: View) -> list[Placed]:
    """Place one camera's detections. Those without a finite distance are left out."""
    if found.distances is None:
        return []
    boxes, depths_m = np.asarray(found.boxes, np.float64), np.asarray(found.distances, np.float64)
    pixels = (boxes[:, :2] + boxes[:, 2:]) / 2
    rays = np.concatenate([(pixels - view.centre) / view.focal, np.ones((len(pixels), 1))], axis=1)
    offsets = ((rays * depths_m[:, None]) @ view.rotation)[:, :2]
    rows = zip(found.classes.tolist(), found.scores.tolist(), offsets.tolist(), strict=True)
    return [
        Placed(
            class_index=class_index,
            score=score,
            x_m=float(view.position[0]) + forward,
            y_m=float(view.position[1]) + left,
            distance_m=float(np.hypot(forward, left)),
            bearing_rad=float(np.arctan2(left, forward)),
            camera_ids=(view.camera_id,),
        )
        for class_index, score, (forward, left) in rows
        if np.isfinite(forward) and np.isfinite(left)
    ]


def merge(objects: Iterable[Placed]) -> list[Placed]:
    """One entry for what several cameras see: the best-scored stays, and says who else saw it.

    Detections of one camera are never merged: it has told them apart.
    """
    kept: list[Placed] = []
    for candidate in sorted(objects, key=lambda item: -item.score):
        same = next((index for index, other in enumerate(kept) if _is_same(candidate, other)), None)
        if same is None:
            kept.append(candidate)
        else:
            kept[same] = replace(kept[same], camera_ids=(*kept[same].camera_ids, *candidate.camera_ids))
    return kept


def _is_same(candidate: Placed, other: Placed) -> bool:
    if candidate.class_index != other.class_index or set(candidate.camera_ids) & set(other.camera_ids):
        return False
    forward_m, left_m = candidate.x_m - other.x_m, candidate.y_m - other.y_m
    cos, sin = float(np.cos(other.bearing_rad)), float(np.sin(other.bearing_rad))
    along_m, across_m = abs(forward_m * cos + left_m * sin), abs(left_m * cos - forward_m * sin)
    distance_m = min(candidate.distance_m, other.distance_m)
    return along_m <= max(ALONG[0], ALONG[1] * distance_m) and across_m <= max(ACROSS[0], ACROSS[1] * distance_m)


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    body = about_z @ about_y @ about_x
    return np.stack([-body[:, 1], -body[:, 2], body[:, 0]])
