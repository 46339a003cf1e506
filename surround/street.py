"""What stands beside the road: buildings with painted facades, trees, lamp posts and signs."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from surround.ground import LENGTH_M, Layout
from surround.towns import Town

Array = NDArray[np.float64]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Building:
    """A box along the road, in road coordinates (metres), with its painted walls.

    Attributes:
        start: s of its first corner.
        end: s of its last corner.
        front: d of the wall that faces the road.
        back: d of the wall that faces away.
        height: Height of the walls.
        ridge: Height of the roof above the walls; 0 is flat.
        facade: Unlit front wall, (H, W, 3) RGB, top row first.
        flank: Unlit side wall, (H, W, 3) RGB.
        roof: RGB of the roof.
    """

    start: float
    end: float
    front: float
    back: float
    height: float
    ridge: float
    facade: Image
    flank: Image
    roof: Array


@dataclass(frozen=True)
class Plant:
    """A tree: position in road coordinates, height and crown width in metres, index of its sprite."""

    s: float
    d: float
    height: float
    width: float
    sprite: int


@dataclass(frozen=True)
class Post:
    """A lamp post (arm towards the road) or a sign (plate colour); road coordinates, metres."""

    s: float
    d: float
    height: float
    arm: float
    plate: Array | None


def _paint_facade(
    width_m: float,
    floors: int,
    floor_m: float,
    colour: Array,
    shops: bool,
    lit: bool,
    plain: bool,
    rng: np.random.Generator,
) -> Image:
    scale = 10.0 if width_m < 20 else 7.0
    width, storey = max(int(width_m * scale), 8), max(int(floor_m * scale), 8)
    image = np.empty((storey * floors, width, 3), np.uint8)
    grain = rng.normal(0, 3.5, (*image.shape[:2], 1)) + rng.normal(0, 5, (image.shape[0], 1, 1)) * 0.4
    image[:] = np.clip(colour + grain, 0, 255).astype(np.uint8)
    if rng.random() < 0.35:
        image[:: max(int(0.5 * scale), 3)] = np.clip(colour * 0.9, 0, 255)
    columns = max(1, int(width_m / rng.uniform(1.9, 4.2))) if not plain else max(1, int(width_m / 6))
    wide, high = rng.uniform(0.35, 0.75), rng.uniform(0.42, 0.7)
    pane = np.array([64.0, 76, 90]) * rng.uniform(0.6, 1.7, 1) * rng.uniform(0.92, 1.08, 3)
    trim = colour * rng.uniform(0.7, 1.3)
    step = width / columns
    for floor in range(floors):
        top = floor * storey
        ground_floor = floor == floors - 1
        if ground_floor and shops:
            image[top : top + storey] = np.clip(colour * rng.uniform(0.45, 0.8), 0, 255)
            sign = np.clip(rng.uniform(30, 220, 3), 0, 255)
            image[top + 1 : top + max(int(storey * 0.22), 2)] = sign
            wide, high = 0.86, 0.6
        elif rng.random() < 0.3:
            image[top : top + 1] = np.clip(trim, 0, 255)
        for column in range(columns):
            x0 = int((column + 0.5 - wide / 2) * step)
            x1 = max(int((column + 0.5 + wide / 2) * step), x0 + 1)
            y0 = top + int(storey * (0.5 - high / 2)) + (int(storey * 0.12) if ground_floor and shops else 0)
            y1 = min(y0 + int(storey * high), top + storey)
            if ground_floor and not shops and column == columns // 2:
                y1 = top + storey
            image[max(y0 - 1, 0) : y1 + 1, max(x0 - 1, 0) : x1 + 1] = np.clip(trim, 0, 255)
            glow = lit and rng.random() < 0.35
            tone = np.array([250.0, 214, 140]) * rng.uniform(0.7, 1) if glow else pane * rng.uniform(0.7, 1.25)
            image[y0:y1, x0:x1] = np.clip(tone, 0, 255)
            image[y0 : (y0 + y1) // 2, x0:x1] = np.clip(tone * 1.25, 0, 255)
            image[y0:y1, (x0 + x1) // 2] = np.clip(trim * 0.8, 0, 255)
    image[:2] = np.clip(trim * 0.8, 0, 255)
    return image


def build_street(layout: Layout, town: Town, lit: bool, rng: np.random.Generator) -> list[Building]:
    """Line both sides of a street with buildings, leaving side streets open."""
    buildings = []
    for side, sign in ((0, -1.0), (1, 1.0)):
        s = 0.0
        while s < LENGTH_M - 4:
            width = min(float(rng.uniform(*town.lot_width)), LENGTH_M - s)
            blocked = [(at, half) for at, half in layout.junctions if s - half - 2.5 < at < s + width + half + 2.5]
            if blocked:
                at, half = blocked[0]
                width = at - half - 2.5 - s
                if width < 5:
                    s = at + half + 2.6
                    continue
            if rng.random() < town.gap:
                s += width * 0.6
                continue
            floors = int(rng.integers(town.floors[0], town.floors[1] + 1))
            floor_m = float(rng.uniform(2.8, 4.2))
            colour = np.asarray(town.facades[rng.integers(len(town.facades))]) * rng.uniform(0.82, 1.12)
            colour = np.clip(colour * rng.uniform(0.92, 1.08, 3), 20, 250)
            depth = float(rng.uniform(8, 14))
            front = sign * (layout.wall(side) + float(rng.uniform(0, 0.5)))
            roof = np.asarray(town.roofs[rng.integers(len(town.roofs))]) if town.roofs else np.array([90.0, 90, 92])
            shops = bool(rng.random() < town.shops)
            buildings.append(
                Building(
                    start=s,
                    end=s + width - (float(rng.uniform(0.3, 3)) if town.gap > 0.2 else 0.0),
                    front=front,
                    back=front + sign * depth,
                    height=floors * floor_m,
                    ridge=float(rng.uniform(1.8, 4)) if town.roofs and rng.random() < 0.8 else 0.0,
                    facade=_paint_facade(width, floors, floor_m, colour, shops, lit, False, rng),
                    flank=_paint_facade(depth, floors, floor_m, colour * 0.94, False, lit, True, rng),
                    roof=roof * rng.uniform(0.85, 1.15),
                )
            )
            s += width
    return buildings


def plant_trees(layout: Layout, town: Town, rng: np.random.Generator) -> list[Plant]:
    """Trees along the sidewalks and in the front yards."""
    plants = []
    for side, sign in ((0, -1.0), (1, 1.0)):
        for _ in range(int(rng.uniform(*town.trees) * LENGTH_M / 100)):
            s = float(rng.uniform(0, LENGTH_M))
            if any(abs(s - at) < half + 3 for at, half in layout.junctions):
                continue
            inner = layout.kerb(side) + 0.7
            yard = town.setback[1] > 3 and rng.random() < 0.5
            d = float(rng.uniform(layout.wall(side) - layout.setback, layout.wall(side))) if yard else inner
            height = float(rng.uniform(4, 9))
            plants.append(Plant(s, sign * d, height, height * float(rng.uniform(0.55, 0.85)), int(rng.integers(3))))
    return plants


def place_posts(layout: Layout, rng: np.random.Generator) -> list[Post]:
    """Lamp posts at regular distances and signs near junctions."""
    posts = []
    spacing = float(rng.uniform(22, 40))
    height, arm = float(rng.uniform(5, 9)), float(rng.uniform(0.6, 2))
    for side, sign in ((0, -1.0), (1, 1.0)):
        d = sign * (layout.kerb(side) + 0.45)
        lamps = np.arange(rng.uniform(0, spacing), LENGTH_M, spacing)
        posts += [Post(float(s), d, height, -sign * arm, None) for s in lamps]
        for at, half in layout.junctions:
            for end in (-1, 1):
                if rng.random() < 0.6:
                    plates = ([200, 30, 30], [30, 70, 170], [230, 200, 40], [235, 235, 235], [60, 60, 60])
                    plate = np.array(plates[rng.integers(len(plates))], float)
                    posts.append(Post(at + end * (half + 2), d, float(rng.uniform(2.3, 3.2)), 0.0, plate))
    return posts


def paint_trees(town: Town, rng: np.random.Generator) -> list[Image]:
    """Three tree sprites (160, 128, 4) RGBA, unlit; the trunk's foot is at the middle of the last row."""
    sprites = []
    for _ in range(3):
        leaf = np.asarray(town.foliage[rng.integers(len(town.foliage))]) * rng.uniform(0.85, 1.2, 3)
        image = np.zeros((160, 128, 4), np.uint8)
        trunk = (*(np.array([86, 70, 56]) * rng.uniform(0.7, 1.1)).tolist(), 255.0)
        cv2.fillConvexPoly(image, np.array([[58, 160], [70, 160], [66, 80], [61, 80]]), trunk, cv2.LINE_AA)
        for branch in (-1, 1):
            cv2.line(image, (64, 104), (64 + branch * 26, 66), trunk, 3, cv2.LINE_AA)
        blobs = []
        for _ in range(90):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
            blobs.append((64 + 46 * radius * np.cos(angle), 56 + 44 * radius * np.sin(angle)))
        blobs.sort(key=lambda p: -p[1])
        for x, y in blobs:
            lift = 0.55 + 0.55 * (1 - y / 110) + rng.uniform(-0.1, 0.12)
            colour = (*np.clip(leaf * lift, 0, 255).tolist(), 255.0)
            cv2.ellipse(
                image, (int(x), int(y)), (int(rng.integers(5, 13)), int(rng.integers(4, 10))), 0, 0, 360, colour, -1
            )
        sprites.append(image)
    return sprites
