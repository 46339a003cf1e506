"""From pixels to the vehicle and back: a pinhole camera at its place.

Vehicle frame: x forward, y left, z up, metres. Camera frame: x right, y down, z along the optical axis. Pixels are
continuous: the top-left one covers [0, 1) x [0, 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client.frames import Camera

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pinhole:
    """A camera whose optics and place are known.

    Attributes:
        camera: As it was declared.
        rotation: From vehicle to camera axes, (3, 3).
        position: Of the pinhole, vehicle frame, (3,).
        focal: (fx, fy) in pixels.
        centre: (cx, cy) in pixels.
    """

    camera: Camera
    rotation: Array
    position: Array
    focal: Array
    centre: Array

    @staticmethod
    def of(camera: Camera) -> Pinhole | None:
        """The geometry of a camera; None where its optics or its place are not known."""
        if camera.intrinsics is None or camera.mounting is None:
            return None
        optics, place = camera.intrinsics, camera.mounting
        return Pinhole(
            camera=camera,
            rotation=_rotation(place.yaw_rad, place.pitch_rad, place.roll_rad),
            position=np.array([place.x_m, place.y_m, place.z_m]),
            focal=np.array([optics.fx_px, optics.fy_px]),
            centre=np.array([optics.cx_px, optics.cy_px]),
        )

    def to_vehicle(self, pixels: Array, depths_m: Array) -> Array:
        """Vehicle-frame points (N, 3) of pixels (N, 2) at depths (N,) along the optical axis."""
        rays = np.concatenate([(pixels - self.centre) / self.focal, np.ones((len(pixels), 1))], 1)
        points: Array = (rays * depths_m[:, None]) @ self.rotation + self.position
        return points

    def to_pixels(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) and depths (N,) of vehicle-frame points (N, 3); pixels mean something where depth > 0."""
        seen = (points - self.position) @ self.rotation.T
        depths_m = seen[:, 2]
        safe = np.where(np.abs(depths_m) < 1e-9, 1e-9, depths_m)
        return seen[:, :2] / safe[:, None] * self.focal + self.centre, depths_m


def _rotation(yaw: float, pitch: float, roll: float) -> Array:
    about_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(pitch), 0, np.sin(pitch)], [0, 1, 0], [-np.sin(pitch), 0, np.cos(pitch)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(roll), -np.sin(roll)], [0, np.sin(roll), np.cos(roll)]])
    body = about_z @ about_y @ about_x
    return np.stack([-body[:, 1], -body[:, 2], body[:, 0]])
