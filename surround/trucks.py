"""Truck models: lorries with cabs and loads, buses and coaches."""

import colorsys

import numpy as np
from numpy.typing import NDArray

from surround.cars import BLACK, GLASS_COLOUR, HEADLAMP, TAIL_LAMP
from surround.mesh import GLASS, LAMP, Mesh, MeshBuilder

Array = NDArray[np.float64]

TRUCK_MODELS: tuple[str, ...] = ("box_truck", "semi_trailer", "bus", "flatbed", "tanker", "tipper", "coach")
"""Names of the truck models."""


def _livery(rng: np.random.Generator) -> Array:
    if rng.random() < 0.45:
        return np.full(3, rng.uniform(150, 238)) * rng.uniform(0.96, 1.0, 3)
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.4, 0.9), rng.uniform(0.3, 0.85))) * 255


def build_truck(model: str, rng: np.random.Generator) -> Mesh:
    """Draw one truck of a model; a ValueError names the known models."""
    if model not in TRUCK_MODELS:
        raise ValueError(f"unknown truck model {model!r}; known models: {', '.join(TRUCK_MODELS)}")
    if model in ("bus", "coach"):
        return _build_bus(model, rng)
    return _build_lorry(model, rng)


def _wheels(build: MeshBuilder, places: list[float], side: float, radius: float) -> None:
    build.part(1)
    for x in places:
        for y in (-side - 0.01, side + 0.01):
            build.wheel(x, y, radius, np.array([150.0, 150, 148]))


def _build_bus(model: str, rng: np.random.Generator) -> Mesh:
    length = float(rng.uniform(9.5, 12.5))
    height = float(rng.uniform(2.9, 3.2) if model == "bus" else rng.uniform(3.4, 3.8))
    half, side = length / 2, float(rng.uniform(1.22, 1.3))
    colour, accent = _livery(rng), _livery(rng)
    build = MeshBuilder()
    build.part(0)
    lean = 0.12 if model == "bus" else 0.45
    body = build.frustum(
        (-half, half, -side, side), (-half + 0.05, half - lean, -side + 0.08, side - 0.08), (0.3, height), colour
    )
    low, high = (0.36, 0.8) if model == "bus" else (0.48, 0.85)
    count = int(rng.integers(5, 9))
    for name in ("left", "right"):
        build.decal(body[name], (0.0, 1.0), (0.05, 0.24), accent)
        build.decal(body[name], (0.0, 1.0), (0.0, 0.05), BLACK)
        for window in range(count):
            edges = (0.03 + 0.94 * window / count, 0.03 + 0.94 * (window + 0.9) / count)
            build.decal(body[name], edges, (low, high), GLASS_COLOUR, GLASS)
    if model == "bus":
        for door in (0.1, 0.55):
            build.decal(body["right"], (1 - door - 0.1, 1 - door), (0.04, 0.8), GLASS_COLOUR * 1.3, GLASS)
    build.decal(body["front"], (0.05, 0.95), (0.3, 0.8), GLASS_COLOUR, GLASS)
    build.decal(body["front"], (0.2, 0.8), (0.84, 0.95), np.array([200.0, 140, 30]), LAMP)
    build.decal(body["rear"], (0.15, 0.85), (0.5, 0.82), GLASS_COLOUR, GLASS)
    build.decal(body["rear"], (0.1, 0.9), (0.08, 0.4), colour * 0.8)
    for left in (0.04, 0.78):
        build.decal(body["front"], (left, left + 0.18), (0.1, 0.2), HEADLAMP, LAMP)
        build.decal(body["rear"], (left + 0.02, left + 0.14), (0.2, 0.36), TAIL_LAMP, LAMP)
    _wheels(build, [half - 2.6, -half + 3.0], side, 0.5)
    return build.build()


def _build_lorry(model: str, rng: np.random.Generator) -> Mesh:
    lengths = {
        "box_truck": (6, 9),
        "semi_trailer": (12, 15),
        "flatbed": (7, 10),
        "tanker": (8, 13),
        "tipper": (6.5, 8.5),
    }
    length = float(rng.uniform(*lengths[model]))
    half, side = length / 2, float(rng.uniform(1.1, 1.27))
    cab_length = float(rng.uniform(1.7, 2.3))
    cab_height = float(rng.uniform(2.4, 3.0) if length < 10 else rng.uniform(2.9, 3.5))
    colour = _livery(rng)
    build = MeshBuilder()
    build.part(0)
    build.frustum(
        (-half + 0.1, half - 0.3, -side + 0.25, side - 0.25),
        (-half + 0.1, half - 0.3, -side + 0.25, side - 0.25),
        (0.45, 1.0),
        BLACK * 1.2,
    )
    axles = [half - 1.2, -half + 1.4] + ([-half + 2.6] if length > 8 else [])
    _wheels(build, axles, side, 0.48)
    build.part(2)
    start = half - cab_length
    cab = build.frustum(
        (start, half, -side, side),
        (start, half - float(rng.uniform(0.08, 0.4)), -side + 0.1, side - 0.1),
        (0.5, cab_height),
        colour,
    )
    build.decal(cab["front"], (0.06, 0.94), (0.48, 0.85), GLASS_COLOUR, GLASS)
    build.decal(cab["front"], (0.15, 0.85), (0.16, 0.42), colour * 0.45)
    build.decal(cab["front"], (0.0, 1.0), (0.0, 0.12), BLACK * 1.4)
    for left in (0.03, 0.81):
        build.decal(cab["front"], (left, left + 0.16), (0.08, 0.18), HEADLAMP, LAMP)
    build.decal(cab["left"], (0.12, 0.68), (0.5, 0.84), GLASS_COLOUR, GLASS)
    build.decal(cab["right"], (0.32, 0.88), (0.5, 0.84), GLASS_COLOUR, GLASS)
    build.part(2)
    box_front = start - 0.15
    load = _livery(rng)
    if model in ("box_truck", "semi_trailer"):
        top = max(cab_height, float(rng.uniform(2.8, 3.8)))
        box = build.frustum((-half, box_front, -side, side), (-half, box_front, -side, side), (0.95, top), load)
        stripe = _livery(rng)
        low = float(rng.uniform(0.15, 0.55))
        for name in ("left", "right"):
            build.decal(box[name], (0.0, 1.0), (0.0, 0.06), BLACK)
            build.decal(box[name], (0.12, float(rng.uniform(0.5, 0.95))), (low, low + 0.25), stripe)
        build.decal(box["rear"], (0.49, 0.51), (0.05, 0.97), load * 0.5)
        build.decal(box["rear"], (0.04, 0.96), (0.0, 0.07), BLACK)
    elif model == "flatbed":
        high = float(rng.uniform(1.4, 2.4))
        build.frustum((-half, box_front, -side, side), (-half, box_front, -side, side), (0.95, 1.3), load * 0.7)
        build.part(3)
        inset = float(rng.uniform(0.1, 0.4))
        pile = (-half + 0.4, box_front - float(rng.uniform(0.3, 2)), -side + inset, side - inset)
        build.frustum(pile, pile, (1.3, 1.3 + high / 2), np.array([150.0, 120, 84]) * rng.uniform(0.5, 1.2))
    elif model == "tanker":
        middle, radius = 2.05, 1.05
        ring = [(radius * np.cos(a), middle + radius * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 11)[:-1]]
        for (y0, z0), (y1, z1) in zip(ring, [*ring[1:], ring[0]], strict=True):
            build.polygon(np.array([(box_front, y0, z0), (box_front, y1, z1), (-half, y1, z1), (-half, y0, z0)]), load)
        build.polygon(np.array([(-half, -y, z) for y, z in ring]), load * 0.9)
        build.polygon(np.array([(box_front, y, z) for y, z in ring]), load * 0.9)
    else:
        slant = float(rng.uniform(0.2, 0.5))
        bed = build.frustum(
            (-half + slant, box_front, -side + 0.1, side - 0.1),
            (-half, box_front, -side, side),
            (0.95, float(rng.uniform(2.1, 2.7))),
            load,
            np.array([120.0, 104, 80]),
        )
        for rib in range(5):
            for name in ("left", "right"):
                build.decal(bed[name], (0.08 + 0.2 * rib, 0.11 + 0.2 * rib), (0.0, 1.0), load * 0.7)
    build.part(1)
    tail = np.array([(-half, side, 0.6), (-half, -side, 0.6), (-half, -side, 0.95), (-half, side, 0.95)])
    build.polygon(tail, BLACK * 1.1)
    for left in (0.05, 0.8):
        build.decal(tail, (left, left + 0.15), (0.2, 0.8), TAIL_LAMP, LAMP)
    return build.build()
