"""Six pinhole cameras around one vehicle.

Vehicle frame: x forward, y left, z up, metres; the origin is on the ground under the rear axle.
Camera frame: x right, y down, z forward (the optical axis).
Pixel frame: continuous, the top-left pixel covers [0, 1) x [0, 1), its centre is (0.5, 0.5).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class CameraInfo:
    """A pinhole camera: intrinsics in pixels, pose in the vehicle frame.

    Attributes:
        id: Name of the camera, for example `front_wide`.
        width: Image width in pixels.
        height: Image height in pixels.
        fx: Focal length along x in pixels.
        fy: Focal length along y in pixels.
        cx: Principal point x in pixels.
        cy: Principal point y in pixels.
        position: (x, y, z) of the pinhole in metres, vehicle frame.
        yaw: Rotation about z in radians; positive looks left.
        pitch: Rotation about the yawed y axis in radians; positive looks down.
        roll: Rotation about the optical axis in radians; positive tilts the right side down.
    """

    id: str
    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    position: tuple[float, float, float]
    yaw: float
    pitch: float
    roll: float

    def rotation(self) -> Array:
        """Rotation from the vehicle frame to the camera frame, (3, 3): `p_cam = R @ (p - position)`."""
        cos_yaw, sin_yaw = np.cos(self.yaw), np.sin(self.yaw)
        cos_pitch, sin_pitch = np.cos(self.pitch), np.sin(self.pitch)
        cos_roll, sin_roll = np.cos(self.roll), np.sin(self.roll)
        about_z = np.array([[cos_yaw, -sin_yaw, 0], [sin_yaw, cos_yaw, 0], [0, 0, 1]])
        about_y = np.array([[cos_pitch, 0, sin_pitch], [0, 1, 0], [-sin_pitch, 0, cos_pitch]])
        about_x = np.array([[1, 0, 0], [0, cos_roll, -sin_roll], [0, sin_roll, cos_roll]])
        body = about_z @ about_y @ about_x
        # Camera axes in body axes: right = -y, down = -z, forward = x.
        axes: Array = np.stack([-body[:, 1], -body[:, 2], body[:, 0]])
        return axes

    def to_camera(self, points: Array) -> Array:
        """Vehicle-frame points (N, 3) in the camera frame, (N, 3), metres."""
        moved: Array = (points - np.asarray(self.position)) @ self.rotation().T
        return moved

    def project(self, points: Array) -> tuple[Array, Array]:
        """Project vehicle-frame points.

        Args:
            points: (N, 3) metres.

        Returns:
            Pixels (N, 2) and forward depth (N,) in metres. Pixels mean something where depth > 0.
        """
        camera = self.to_camera(points)
        depth = camera[:, 2]
        safe = np.where(np.abs(depth) < 1e-9, 1e-9, depth)
        pixels = np.stack([self.fx * camera[:, 0] / safe + self.cx, self.fy * camera[:, 1] / safe + self.cy], 1)
        return pixels, depth

    def unproject(self, pixels: Array, depth: Array) -> Array:
        """Vehicle-frame points (N, 3) of pixels (N, 2) at forward depths (N,) in metres."""
        rays = np.stack(
            [(pixels[:, 0] - self.cx) / self.fx, (pixels[:, 1] - self.cy) / self.fy, np.ones(len(pixels))], 1
        )
        points: Array = (rays * depth[:, None]) @ self.rotation() + np.asarray(self.position)
        return points

    def resized(self, width: int, height: int) -> "CameraInfo":
        """The same camera with its image resized to width x height pixels."""
        across, down = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=self.cx * across,
            cy=self.cy * down,
        )


# id: (x m, y m, z m, yaw deg, pitch deg, horizontal field of view deg)
_MOUNTS: dict[str, tuple[float, float, float, float, float, float]] = {
    "front_wide": (1.9, 0.0, 1.45, 0.0, 3.0, 95.0),
    "front_narrow": (1.9, 0.1, 1.47, 0.0, 0.5, 42.0),
    "front_left": (1.5, 0.85, 1.25, 58.0, 3.0, 86.0),
    "front_right": (1.5, -0.85, 1.25, -58.0, 3.0, 86.0),
    "rear_left": (0.4, 0.85, 1.25, 132.0, 3.0, 86.0),
    "rear_right": (0.4, -0.85, 1.25, -132.0, 3.0, 86.0),
}

CAMERA_IDS: tuple[str, ...] = tuple(_MOUNTS)
"""Names of the six cameras, in the order in which they are rendered."""


def surround_rig(width: int = 640, height: int = 384, rng: np.random.Generator | None = None) -> tuple[CameraInfo, ...]:
    """The six cameras at one image size.

    Pixels are square at every size: the horizontal field of view is fixed and the vertical one follows.

    Args:
        width: Image width in pixels.
        height: Image height in pixels.
        rng: When given, mounting tolerances (centimetres, degrees, focal length) are drawn from it.
    """
    if not (32 <= width <= 1920 and 32 <= height <= 1080):
        raise ValueError(f"image size {width}x{height} is outside 32x32 to 1920x1080; try size=640x384")
    cameras = []
    for name, (x, y, z, yaw, pitch, view) in _MOUNTS.items():
        jitter = np.zeros(6) if rng is None else rng.uniform(-1, 1, 6)
        focal = width / 2 / np.tan(np.radians(view) / 2) * (1 + 0.12 * jitter[0])
        cameras.append(
            CameraInfo(
                id=name,
                width=width,
                height=height,
                fx=float(focal),
                fy=float(focal),
                cx=width / 2,
                cy=height / 2,
                position=(x + 0.2 * float(jitter[1]), y, z + 0.2 * float(jitter[2])),
                yaw=float(np.radians(yaw + 4 * jitter[3])),
                pitch=float(np.radians(pitch + 1.5 * jitter[4])),
                roll=0.0,
            )
        )
    return tuple(cameras)
