"""Pedestrians and cyclists as moving skeletons of limbs."""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LIMB, BALL, HULL, RING = 0, 1, 2, 3
"""Shapes: a thick line between two points, a disc, the convex hull of points, a thick closed line."""


@dataclass(frozen=True)
class Shape:
    """One piece of a figure: kind, points (N, 3) metres in the object frame, radius in metres, RGB 0..255."""

    kind: int
    points: Array
    radius: float
    colour: Array


@dataclass(frozen=True)
class Figure:
    """What a person looks like; `pose` turns it into shapes.

    Attributes:
        rides: True for a cyclist.
        height: Standing height in metres.
        build: Girth relative to the height, about 1.
        skin: RGB.
        hair: RGB; a helmet when riding.
        shirt: RGB.
        trousers: RGB.
        bike: RGB of the frame.
        coat: How far the top reaches down the legs, 0 to 1.
        bag: RGB of a bag, or None.
    """

    rides: bool
    height: float
    build: float
    skin: Array
    hair: Array
    shirt: Array
    trousers: Array
    bike: Array
    coat: float
    bag: Array | None


def draw_figure(rides: bool, held_out: bool, rng: np.random.Generator) -> Figure:
    """Draw a person's looks. Held-out people have other builds, coats and colours."""

    def cloth(saturation: tuple[float, float], value: tuple[float, float]) -> Array:
        return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))) * 255

    child = rng.random() < 0.12 and not rides
    tone = rng.uniform(0.35, 1.0)
    colours = ((0.35, 0.7), (0.3, 0.95)) if held_out else ((0.0, 0.85), (0.12, 0.9))
    return Figure(
        rides=rides,
        height=float(rng.uniform(1.15, 1.5) if child else rng.uniform(1.55, 1.95)),
        build=float(rng.uniform(0.95, 1.25) if held_out else rng.uniform(0.85, 1.2)),
        skin=np.array([232.0, 190, 160]) * tone,
        hair=np.array([90.0, 64, 44]) * rng.uniform(0.2, 1.8) if not rides else cloth((0.2, 0.9), (0.3, 0.95)),
        shirt=cloth(*colours),
        trousers=cloth((0.0, 0.5), (0.08, 0.5)),
        bike=cloth((0.2, 0.9), (0.2, 0.8)),
        coat=float(rng.choice([0.5, 0.75]) if held_out and rng.random() < 0.5 else rng.choice([0.05, 0.05, 0.3])),
        bag=cloth((0.2, 0.8), (0.15, 0.7)) if rng.random() < 0.3 else None,
    )


def pose(figure: Figure, phase: float) -> list[Shape]:
    """Shapes of the figure at one moment, in drawing order from the legs up.

    Args:
        figure: The person.
        phase: Steps or pedal turns in radians; one cycle is 2 pi.
    """
    return _riding(figure, phase) if figure.rides else _walking(figure, phase)


def _moved(point: Array, x: float, y: float, z: float) -> Array:
    moved: Array = point + np.array([x, y, z])
    return moved


def _torso(low: Array, high: Array, wide: float, deep: float) -> Array:
    corners = []
    for centre, grow in ((low, 0.88), (high, 1.0), (high + (high - low) * 0.12, 0.45)):
        corners += [_moved(centre, x * grow, y * grow, 0.0) for y in (-wide, wide) for x in (-deep, deep)]
    return np.array(corners)


def _walking(figure: Figure, phase: float) -> list[Shape]:
    h, girth = figure.height, figure.build
    swing = np.sin(phase) * 0.2 * h
    hip = np.array([0.0, 0.0, 0.5 * h])
    neck = np.array([0.03 * h, 0.0, 0.82 * h])
    wide, deep = 0.125 * h * girth, 0.07 * h * girth
    shapes: list[Shape] = []
    for side in (-1.0, 1.0):
        root = hip + np.array([0, side * 0.055 * h, 0])
        foot = np.array([side * swing, side * 0.06 * h, 0.03 * h + max(0.0, side * np.cos(phase)) * 0.05 * h])
        knee = (root + foot) / 2 + np.array([0.04 * h, 0, 0])
        shapes.append(Shape(LIMB, np.array([root, knee]), 0.055 * h * girth, figure.trousers))
        shapes.append(Shape(LIMB, np.array([knee, foot]), 0.04 * h, figure.trousers * 0.92))
        shapes.append(
            Shape(LIMB, np.array([foot, _moved(foot, 0.08 * h, 0, -0.01 * h)]), 0.026 * h, np.array([40.0, 36, 34]))
        )
    low = hip + np.array([0, 0, -figure.coat * 0.38 * h])
    if figure.bag is not None:
        shapes.append(
            Shape(
                HULL,
                _torso(_moved(hip, -0.1 * h, 0, 0.1 * h), _moved(neck, -0.1 * h, 0, -0.04 * h), wide * 0.7, 0.06 * h),
                0,
                figure.bag,
            )
        )
    shapes.append(Shape(HULL, _torso(low, _moved(neck, 0, 0, -0.02 * h), wide, deep), 0.0, figure.shirt))
    for side in (-1.0, 1.0):
        shoulder = neck + np.array([0, side * wide, -0.03 * h])
        hand = np.array([-side * swing * 0.8 + 0.05 * h, side * (wide + 0.03 * h), 0.46 * h])
        elbow = (shoulder + hand) / 2 + np.array([-0.03 * h, side * 0.01 * h, 0])
        shapes.append(Shape(LIMB, np.array([shoulder, elbow]), 0.032 * h * girth, figure.shirt * 0.85))
        shapes.append(Shape(LIMB, np.array([elbow, hand]), 0.026 * h * girth, figure.shirt * 0.8))
        shapes.append(Shape(BALL, hand[None], 0.026 * h, figure.skin))
    head = np.array([0.04 * h, 0.0, 0.925 * h])
    shapes.append(Shape(BALL, (_moved(head, -0.015 * h, 0, 0.012 * h))[None], 0.068 * h, figure.hair))
    shapes.append(Shape(BALL, (_moved(head, 0.02 * h, 0, -0.012 * h))[None], 0.055 * h, figure.skin))
    return shapes


def _riding(figure: Figure, phase: float) -> list[Shape]:
    h, girth = figure.height, figure.build
    radius, base = 0.34, 0.53
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.stack([radius * np.cos(angle), np.zeros(14), radius + radius * np.sin(angle)], 1)
    rear, front = np.array([-base, 0, 0]), np.array([base, 0, 0])
    hub = np.array([0.0, 0.0, 0.3])
    saddle, bar = np.array([-0.22, 0, 0.92]), np.array([0.38, 0, 0.98])
    tyre = np.array([26.0, 26, 28])
    shapes = [Shape(RING, ring + rear, 0.028, tyre), Shape(RING, ring + front, 0.028, tyre)]
    axle_rear, axle_front = _moved(rear, 0, 0, radius), _moved(front, 0, 0, radius)
    tubes = (
        (axle_rear, hub),
        (hub, saddle),
        (axle_rear, _moved(saddle, 0.04, 0, -0.1)),
        (hub, _moved(bar, 0, 0, -0.15)),
        (_moved(saddle, 0.04, 0, -0.12), _moved(bar, 0, 0, -0.12)),
        (axle_front, bar),
    )
    for a, b in tubes:
        shapes.append(Shape(LIMB, np.array([a, b]), 0.026, figure.bike))
    shapes.append(Shape(LIMB, np.array([_moved(bar, 0, -0.26, 0.02), _moved(bar, 0, 0.26, 0.02)]), 0.022, tyre))
    hip = saddle + np.array([0, 0, 0.05])
    neck = hip + np.array([0.3, 0, 0.29 * h])
    wide, deep = 0.12 * h * girth, 0.075 * h * girth
    for side in (-1.0, 1.0):
        turn = phase + (np.pi if side > 0 else 0)
        foot = hub + np.array([0.17 * np.cos(turn), side * 0.1, 0.17 * np.sin(turn)])
        root = hip + np.array([0, side * 0.09, 0])
        knee = (root + foot) / 2 + np.array([0.17, side * 0.03, 0.07])
        shapes.append(Shape(LIMB, np.array([root, knee]), 0.056 * h * girth, figure.trousers))
        shapes.append(Shape(LIMB, np.array([knee, foot]), 0.04 * h, figure.trousers * 0.9))
        shapes.append(Shape(LIMB, np.array([foot, _moved(foot, 0.14, 0, 0)]), 0.035, np.array([44.0, 40, 40])))
    if figure.bag is not None:
        shapes.append(
            Shape(
                HULL, _torso(_moved(hip, -0.06, 0, 0.12), _moved(neck, -0.14, 0, -0.02), wide * 0.8, 0.1), 0, figure.bag
            )
        )
    shapes.append(Shape(HULL, _torso(hip, neck, wide, deep), 0.0, figure.shirt))
    for side in (-1.0, 1.0):
        shoulder = neck + np.array([0, side * wide, -0.02])
        hand = bar + np.array([0, side * 0.25, 0.03])
        elbow = (shoulder + hand) / 2 + np.array([-0.04, side * 0.04, -0.06])
        shapes.append(Shape(LIMB, np.array([shoulder, elbow]), 0.034 * h * girth, figure.shirt * 0.88))
        shapes.append(Shape(LIMB, np.array([elbow, hand]), 0.026 * h, figure.skin))
    head = neck + np.array([0.06, 0, 0.09 * h])
    shapes.append(Shape(BALL, head[None], 0.062 * h, figure.skin))
    shapes.append(Shape(BALL, (_moved(head, -0.01, 0, 0.03 * h))[None], 0.066 * h, figure.hair))
    return shapes
