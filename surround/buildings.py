"""Buildings in a camera's image: walls with painted facades, pitched roofs."""

import numpy as np
from numpy.typing import NDArray

from surround.canvas import Canvas, clip_near
from surround.ground import LENGTH_M
from surround.scene import Moment, Scene
from surround.street import Building

Array = NDArray[np.float64]


def building_corners(scene: Scene, moment: Moment) -> Array:
    """Corners (B, 4, 2) of the buildings, metres, vehicle frame: front start, front end, back end, back start."""
    houses, road = scene.buildings, moment.road
    middle = np.array([(h.start + h.end) / 2 for h in houses]) - moment.vehicle_s
    shift = (middle + LENGTH_M / 2) % LENGTH_M - LENGTH_M / 2 - middle - moment.vehicle_s
    start = np.array([h.start for h in houses]) + shift
    end = np.array([h.end for h in houses]) + shift
    front, back = np.array([h.front for h in houses]), np.array([h.back for h in houses])
    return np.stack([road.to_vehicle(a, b) for a, b in ((start, front), (end, front), (end, back), (start, back))], 1)


def draw_building(canvas: Canvas, house: Building, base: Array) -> list[Array]:
    """Draw the walls that face the camera, then the roof.

    Args:
        canvas: What to draw into.
        house: The building.
        base: (4, 2) its corners on the ground in the vehicle frame, metres.

    Returns:
        Outlines (N, 2) in pixels of what it hides.
    """
    hidden = []
    eye = canvas.origin[:2]
    left = house.front > 0
    ring = base if left else base[::-1]  # counter-clockwise seen from above
    for wall in range(4):
        # Seen from outside, the left end of a wall of a counter-clockwise ring is its first corner.
        a, b = ring[wall], ring[(wall + 1) % 4]
        normal = np.array([b[1] - a[1], a[0] - b[0]])
        if normal @ (eye - a) <= 0:
            continue
        normal /= np.linalg.norm(normal) + 1e-9
        light = canvas.light(np.array([[normal[0], normal[1], 0.0]]))[0]
        texture = house.facade if wall % 2 == 0 else house.flank
        hidden.append(canvas.draw_wall(texture, np.array([a, b]), house.height, light))
    if house.ridge:
        _draw_roof(canvas, base, house.height, house.ridge, house.roof)
    return hidden


def _draw_roof(canvas: Canvas, base: Array, height: float, ridge: float, colour: Array) -> None:
    eaves = np.concatenate([base, np.full((4, 1), height)], 1)
    top = np.array([(eaves[0] + eaves[3]) / 2, (eaves[1] + eaves[2]) / 2]) + np.array([0, 0, ridge])
    for polygon, lit in (
        (np.array([eaves[1], eaves[2], top[1]]), 0.8),
        (np.array([eaves[3], eaves[0], top[0]]), 0.8),
        (np.array([eaves[0], eaves[1], top[1], top[0]]), 1.0),
    ):
        normal = np.cross(polygon[1] - polygon[0], polygon[2] - polygon[0])
        outward = np.sign(normal @ (polygon.mean(0) - eaves.mean(0)))
        if outward * (normal @ (canvas.origin - polygon[0])) <= 0:
            continue
        camera = clip_near(canvas.to_camera(polygon))
        if len(camera) < 3:
            continue
        light = canvas.light(np.array([[0.0, 0.0, 0.8]]))[0] * lit
        canvas.fill(canvas.pixels(camera), np.clip(canvas.veil(colour * light, float(camera[:, 2].mean())), 0, 255))
