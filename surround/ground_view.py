"""The ground as one camera sees it: texture lookup row by row, the air before it, reflections on wet roads."""

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.ground import HALF_WIDTH_M, LENGTH_M, PIXELS_PER_M
from surround.rig import CameraInfo
from surround.scene import Moment, Scene
from surround.truth import MASK_SCALE

Image = NDArray[np.uint8]

_CELL = 8  # image columns per column of the coarse ground grid
_FAR_GROUND_M = 260.0


class GroundView:
    """Where each image row meets the ground, computed once per camera.

    Args:
        scene: What lies on the ground.
        camera: Where it is seen from; its roll is 0.

    Attributes:
        horizon: The first image row that shows ground.
    """

    def __init__(self, scene: Scene, camera: CameraInfo) -> None:
        self.scene, self.camera = scene, camera
        width, height = camera.width, camera.height
        rotation, origin = camera.rotation(), np.asarray(camera.position)
        columns = (np.arange(-1, width // _CELL + 2) + 0.5) * _CELL
        u, v = np.meshgrid(columns, np.arange(height) + 0.5)
        rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones_like(u)], -1) @ rotation
        fall = -rays[:, 0, 2]
        depth = np.where(fall > 1e-4, origin[2] / np.maximum(fall, 1e-4), np.inf)
        self.horizon = int(np.searchsorted(-depth, -_FAR_GROUND_M))  # first row that shows ground
        self._depth = depth[self.horizon :]
        ground = rays[self.horizon :] * self._depth[:, None, None] + origin
        self._x, self._y = ground[..., 0], ground[..., 1]
        clear = np.exp(-scene.weather.extinction * self._depth)[:, None, None]
        shape = (len(self._depth), width, 3)
        self._clear = np.ascontiguousarray(np.broadcast_to((clear * 255).round().astype(np.uint8), shape))
        air = (scene.weather.horizon * (1 - clear)).clip(0, 255).astype(np.uint8)
        self._air = np.ascontiguousarray(np.broadcast_to(air, shape))
        footprint = self._depth / camera.fx * np.sqrt(np.maximum(self._depth / origin[2], 1.0))
        level = np.log2(np.maximum(footprint * PIXELS_PER_M, 1e-6)) + 0.3
        self._levels = np.clip(level.round(), 0, len(scene.ground.levels) - 1).astype(int)

    def draw(self, image: Image, moment: Moment) -> Image:
        """Draw the ground; returns its drivable mask (ceil(H/2), ceil(W/2)), 255 where drivable."""
        camera, top = self.camera, self.horizon
        mask = np.zeros((-(-camera.height // MASK_SCALE), -(-camera.width // MASK_SCALE)), np.uint8)
        if top >= camera.height:
            return mask
        s, d = moment.road.from_vehicle(self._x, self._y)
        along = ((s + moment.vehicle_s % LENGTH_M) * PIXELS_PER_M).astype(np.float32)
        across = ((HALF_WIDTH_M - np.clip(d, -HALF_WIDTH_M + 0.1, HALF_WIDTH_M - 0.1)) * PIXELS_PER_M).astype(
            np.float32
        )
        grid = cv2.merge([along, across])
        wide = grid.shape[1] * _CELL
        start = 0
        while start < len(self._levels):
            level = int(self._levels[start])
            stop = start + int(np.searchsorted(-self._levels[start:], -level, side="right"))
            scaled = grid[start:stop] / 2**level - 0.5
            full = cv2.resize(scaled, (wide, stop - start), interpolation=cv2.INTER_LINEAR)[
                :, _CELL : _CELL + camera.width
            ]
            image[top + start : top + stop] = cv2.remap(  # type: ignore[call-overload]
                self.scene.ground.levels[level], full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
            )
            start = stop
        ground = image[top:]
        cv2.multiply(ground, self._clear, dst=ground, scale=1 / 255)
        cv2.add(ground, self._air, dst=ground)
        first = top + top % MASK_SCALE
        rows = grid[first - top :: MASK_SCALE] / 2 - 0.5
        if len(rows):
            half = cv2.resize(rows, (wide // MASK_SCALE, len(rows)), interpolation=cv2.INTER_LINEAR)
            half = half[:, _CELL // MASK_SCALE : _CELL // MASK_SCALE + mask.shape[1]]
            mask[first // MASK_SCALE :] = cv2.remap(  # type: ignore[call-overload]
                self.scene.ground.drivable, half, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_WRAP
            )
        return mask

    def reflect(self, image: Image) -> None:
        """Mirror what is above the horizon faintly in the wet ground."""
        top = self.horizon
        rows = min(top, image.shape[0] - top)
        if rows < 4:
            return
        small = cv2.resize(image[top - rows : top], (image.shape[1] // 4, rows // 4), interpolation=cv2.INTER_AREA)
        small = cv2.blur(small[::-1], (1, 9))
        ground = image[top:]
        mirror = cv2.resize(small, (image.shape[1], ground.shape[0]), interpolation=cv2.INTER_LINEAR)
        share = 0.3 * self.scene.weather.wet
        cv2.addWeighted(ground, 1 - share, mirror, share, 0, dst=ground)
