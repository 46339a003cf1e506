"""Car models: bodies, cabins, glass, wheels and lamps with drawn proportions."""

import colorsys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surround.mesh import GLASS, LAMP, Mesh, MeshBuilder

Array = NDArray[np.float64]
Range = tuple[float, float]

GLASS_COLOUR = np.array([38.0, 46.0, 54.0])
HEADLAMP = np.array([236.0, 236.0, 224.0])
TAIL_LAMP = np.array([186.0, 22.0, 20.0])
BLACK = np.array([30.0, 30.0, 32.0])


@dataclass(frozen=True)
class _CarKind:
    length: Range
    width: Range
    height: Range
    belt: Range  # height of the window line, share of the height
    cabin: tuple[Range, Range]  # rear and front end of the cabin's base, share of the length from the rear
    slope: tuple[Range, Range]  # how far rear window and windscreen lean in, share of the length
    nose: Range  # how far the bonnet dips, share of the belt height


_KINDS: dict[str, _CarKind] = {
    "sedan": _CarKind((4.3, 5.0), (1.72, 1.92), (1.4, 1.5), (0.6, 0.66), ((0.1, 0.16), (0.72, 0.77)),
                      ((0.1, 0.15), (0.12, 0.17)), (0.08, 0.2)),
    "hatchback": _CarKind((3.6, 4.4), (1.66, 1.85), (1.42, 1.58), (0.58, 0.65), ((0.01, 0.03), (0.74, 0.82)),
                          ((0.05, 0.1), (0.13, 0.18)), (0.1, 0.25)),
    "suv": _CarKind((4.2, 5.1), (1.8, 2.02), (1.62, 1.92), (0.58, 0.65), ((0.01, 0.03), (0.7, 0.78)),
                    ((0.03, 0.08), (0.08, 0.14)), (0.04, 0.12)),
    "minivan": _CarKind((4.4, 5.2), (1.8, 2.0), (1.75, 2.05), (0.52, 0.6), ((0.0, 0.02), (0.84, 0.92)),
                        ((0.01, 0.04), (0.12, 0.2)), (0.15, 0.3)),
    "pickup": _CarKind((5.0, 5.7), (1.85, 2.05), (1.75, 1.92), (0.56, 0.62), ((0.36, 0.42), (0.7, 0.75)),
                       ((0.01, 0.03), (0.08, 0.12)), (0.02, 0.1)),
    "estate": _CarKind((4.5, 5.0), (1.75, 1.9), (1.43, 1.55), (0.6, 0.65), ((0.01, 0.02), (0.7, 0.75)),
                       ((0.07, 0.11), (0.12, 0.16)), (0.1, 0.2)),
    "coupe": _CarKind((4.1, 4.7), (1.78, 1.95), (1.24, 1.38), (0.62, 0.68), ((0.06, 0.14), (0.64, 0.7)),
                      ((0.16, 0.22), (0.14, 0.18)), (0.12, 0.25)),
}  # fmt: skip

CAR_MODELS: tuple[str, ...] = tuple(_KINDS)
"""Names of the car models."""


def paint(rng: np.random.Generator) -> Array:
    """A car colour, RGB 0..255: mostly greys, some hues, as on a real street."""
    if rng.random() < 0.55:
        tone = rng.choice([24, 50, 90, 130, 170, 205, 232]) * rng.uniform(0.9, 1.08)
        return np.asarray(tone * rng.uniform(0.96, 1.04, 3))
    hue = rng.choice([0.0, 0.02, 0.08, 0.13, 0.33, 0.5, 0.58, 0.62, 0.66]) + rng.uniform(-0.03, 0.03)
    return np.array(colorsys.hsv_to_rgb(hue % 1, rng.uniform(0.45, 0.9), rng.uniform(0.3, 0.9))) * 255


def build_car(model: str, rng: np.random.Generator) -> Mesh:
    """Draw one car of a model; a ValueError names the known models."""
    if model not in _KINDS:
        raise ValueError(f"unknown car model {model!r}; known models: {', '.join(_KINDS)}")
    kind = _KINDS[model]
    length, width, height = (float(rng.uniform(*r)) for r in (kind.length, kind.width, kind.height))
    belt = height * float(rng.uniform(*kind.belt))
    half, side = length / 2, width / 2
    colour = paint(rng)
    build = MeshBuilder()
    sill = 0.2
    build.part(0)
    waist = sill + (belt - sill) * 0.55
    lower = build.frustum(
        (-half + 0.06, half - 0.08, -side + 0.05, side - 0.05), (-half, half, -side, side), (sill, waist), colour * 0.8
    )
    build.part(0)
    taper = length * 0.02
    dip = (belt - waist) * float(rng.uniform(*kind.nose))
    shoulder = (-half + taper, half - taper - dip, -side + 0.06, side - 0.06)
    upper = build.frustum((-half, half, -side, side), shoulder, (waist, belt), colour, colour * 1.05)
    build.part(1)
    for name in ("left", "right"):
        build.decal(lower[name], (0.0, 1.0), (0.0, 0.22), BLACK)
        for edge in (0.36, 0.58):
            build.decal(upper[name], (edge, edge + 0.006), (0.0, 1.0), colour * 0.45)
            build.decal(upper[name], (edge + 0.03, edge + 0.07), (0.6, 0.72), colour * 0.5)
    build.decal(lower["front"], (0.0, 1.0), (0.0, 0.3), BLACK)
    build.decal(lower["front"], (0.22, 0.78), (0.45, 1.0), BLACK * 1.1)
    build.decal(lower["front"], (0.38, 0.62), (0.42, 0.68), np.array([225.0, 225, 215]))
    build.decal(lower["rear"], (0.0, 1.0), (0.0, 0.35), BLACK * 1.3)
    build.decal(upper["rear"], (0.36, 0.64), (0.1, 0.42), np.array([225.0, 225, 205]))
    lamp_high = float(rng.uniform(0.6, 0.95))
    lamp_wide = float(rng.uniform(0.14, 0.24))
    for left in (0.02, 0.98 - lamp_wide):
        build.decal(upper["front"], (left, left + lamp_wide), (0.05, 0.75), HEADLAMP, LAMP)
        build.decal(upper["rear"], (left, left + lamp_wide), (lamp_high - 0.4, lamp_high), TAIL_LAMP, LAMP)
    if rng.random() < 0.3:
        build.decal(upper["rear"], (0.05, 0.95), (lamp_high - 0.12, lamp_high), TAIL_LAMP * 0.8, LAMP)
    radius = height * float(rng.uniform(0.2, 0.24))
    rim = np.full(3, rng.uniform(60, 190))
    for x in (-half + length * rng.uniform(0.17, 0.21), half - length * rng.uniform(0.16, 0.2)):
        for y in (-side - 0.005, side + 0.005):
            build.wheel(float(x), y, radius, rim)
    build.part(2)
    rear, front = (-half + length * float(rng.uniform(*r)) for r in kind.cabin)
    rear_slope, front_slope = (length * float(rng.uniform(*r)) for r in kind.slope)
    roof = (rear + rear_slope, front - front_slope, -side + 0.2, side - 0.2)
    roof_colour = BLACK * 1.2 if rng.random() < 0.15 else colour
    cabin = build.frustum((rear, front, -side + 0.07, side - 0.07), roof, (belt, height), colour, roof_colour)
    build.decal(cabin["front"], (0.05, 0.95), (0.02, 0.93), GLASS_COLOUR, GLASS)
    build.decal(cabin["rear"], (0.07, 0.93), (0.1, 0.9), GLASS_COLOUR, GLASS)
    for name in ("left", "right"):
        for window in ((0.06, 0.34), (0.37, 0.62), (0.65, 0.93)) if length > 4.4 else ((0.06, 0.47), (0.51, 0.93)):
            build.decal(cabin[name], window, (0.08, 0.88), GLASS_COLOUR, GLASS)
    return build.build()
