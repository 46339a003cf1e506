"""One street with its weather and road users: everything that is drawn, as a function of time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surround.actors import Actor, populate
from surround.ground import Ground, draw_layout
from surround.mesh import Mesh
from surround.road import RoadFrame
from surround.street import build_street, paint_trees, place_posts, plant_trees
from surround.towns import Town
from surround.weather import weather_named

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Placed:
    """An actor at one moment: position (x, y) in metres and heading in radians, vehicle frame."""

    actor: Actor
    position: tuple[float, float]
    heading: float
    phase: float


@dataclass(frozen=True)
class Moment:
    """A scene at one time.

    Attributes:
        time: Seconds since the scene began.
        vehicle_s: Distance driven, metres.
        road: The road seen from the vehicle.
        actors: Road users in sight range.
    """

    time: float
    vehicle_s: float
    road: RoadFrame
    actors: tuple[Placed, ...]


class Scene:
    """A street drawn from a seed. The same arguments give the same street, to the last bit.

    Args:
        seed: Any non-negative integer.
        town: Palette, layout, weathers and models.
        weather: Name of a weather; None draws one of the town's.
    """

    def __init__(self, seed: int, town: Town, weather: str | None = None) -> None:
        rng = np.random.default_rng([seed, *town.name.encode()])
        self.seed, self.town = seed, town
        self.weather = weather_named(weather or str(rng.choice(town.weathers)), rng)
        self.layout = draw_layout(town, rng)
        self.ground = Ground(self.layout, town, self.weather, rng)
        self.buildings = build_street(self.layout, town, self.weather.lamps, rng)
        self.plants = plant_trees(self.layout, town, rng)
        self.posts = place_posts(self.layout, rng)
        self.sprites = paint_trees(town, rng)
        self._cast_shadows()
        standing = rng.random() < 0.35
        self.speed = 0.0 if standing else float(rng.uniform(5, 14))
        lane = int(rng.integers(self.layout.lanes))
        self._offset = -(lane + 0.5) * self.layout.lane_width + float(rng.normal(0, 0.2))
        self._heading = float(rng.normal(0, 0.035))
        self._bend = float(rng.choice([0, 1 / 400, 1 / 220, 1 / 130]) * rng.choice([-1, 1]))
        self._bend_phase = float(rng.uniform(0, 2 * np.pi))
        self.actors = populate(town, self.layout, lane, self.speed, rng)

    def at(self, time: float) -> Moment:
        """The scene at a time in seconds."""
        driven = self.speed * time
        wave = 2 * np.pi * driven / 700 + self._bend_phase
        road = RoadFrame(
            curvature=float(self._bend * np.sin(wave)),
            offset=float(self._offset + 0.12 * np.sin(0.5 * time)),
            heading=float(self._heading * np.cos(0.4 * time)),
        )
        places = [actor.place(time, driven) for actor in self.actors]
        ground = road.to_vehicle(np.array([p[0] for p in places]), np.array([p[1] for p in places]))
        placed = tuple(
            Placed(actor, (float(x), float(y)), heading + road.direction(s), phase)
            for actor, (s, _, heading, phase), (x, y) in zip(self.actors, places, ground, strict=True)
        )
        return Moment(time, driven, road, placed)

    def _cast_shadows(self) -> None:
        """Paint the shadows of what never moves into the ground."""
        if not self.weather.casts_shadows:
            return
        sun = self.weather.sun
        slide = -sun[:2] / max(float(sun[2]), 0.2)
        polygons: list[Array] = []
        for house in self.buildings:
            corners = np.array(
                [
                    (house.start, house.front),
                    (house.end, house.front),
                    (house.end, house.back),
                    (house.start, house.back),
                ]
            )
            for i in range(4):
                a, b = corners[i], corners[(i + 1) % 4]
                polygons.append(np.array([a, b, b + slide * house.height, a + slide * house.height]))
        for plant in self.plants:
            centre = np.array([plant.s, plant.d]) + slide * plant.height * 0.62
            angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            ripple = 1 + 0.18 * np.sin(3 * angle + plant.s)
            crown = np.stack([np.cos(angle), np.sin(angle)], 1) * ripple[:, None] * plant.width / 2
            stretch = np.outer(crown @ slide, slide) * 0.3
            polygons.append(centre + crown + stretch)
            side = np.array([0.12, 0.12])
            foot = np.array([plant.s, plant.d])
            polygons.append(np.array([foot - side, foot + side, centre + side, centre - side]))
        for post in self.posts:
            foot, top = np.array([post.s, post.d]), np.array([post.s, post.d]) + slide * post.height
            polygons.append(np.array([foot - 0.07, foot + 0.07, top + 0.07, top - 0.07]))
        light = float(self.weather.sun_light.mean()) * max(float(sun[2]), 0.05)
        self.ground.darken(polygons, light / (light + float(self.weather.ambient.mean())))


def corners_of(placed: Placed, size: tuple[float, float, float]) -> Array:
    """Corners (8, 3) of an actor's upright box in the vehicle frame, the four on the ground first."""
    length, width, height = size
    cos, sin = np.cos(placed.heading), np.sin(placed.heading)
    signs = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * (length / 2, width / 2)
    ground = signs @ np.array([[cos, sin], [-sin, cos]]) + placed.position
    flat = np.concatenate([ground, np.zeros((4, 1))], 1)
    return np.concatenate([flat, flat + np.array([0, 0, height])])


def size_of(actor: Actor) -> tuple[float, float, float]:
    """(length, width, height) in metres of an actor."""
    if isinstance(actor.model, Mesh):
        return actor.model.size
    figure = actor.model
    return (1.75, 0.6, 1.05 + 0.39 * figure.height) if figure.rides else (0.5, 0.32 * figure.height, figure.height)
