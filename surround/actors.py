"""Road users: who is on the street and how each moves along it."""

from dataclasses import dataclass

import numpy as np

from surround.cars import build_car
from surround.ground import LENGTH_M, Layout
from surround.mesh import Mesh
from surround.people import Figure, draw_figure
from surround.spec import LABELS
from surround.towns import Town
from surround.trucks import build_truck

BEHIND_M, AHEAD_M = -90.0, 150.0
"""Moving road users stay in this range of s around the vehicle: who leaves at one end comes back at the other."""

CAR, TRUCK, CYCLIST, PEDESTRIAN = (LABELS.index(name) for name in ("car", "truck", "cyclist", "pedestrian"))


@dataclass(frozen=True)
class Actor:
    """A road user and its motion, a function of time alone.

    Attributes:
        id: Number, unique in its scene, from 1.
        label: Index into LABELS.
        model: Solid mesh of a vehicle, or the looks of a person.
        s: Distance along the road at time 0, metres.
        d: Distance left of the centre line, metres.
        heading: Direction relative to the road in radians; 0 drives towards growing s.
        speed: Metres per second along s.
        fixed: True for what keeps its place in the street (parked, waiting) and repeats with it.
        sway: (metres, radians per second, phase) of a slow change of d.
        gait: Steps or pedal turns in radians per second.
    """

    id: int
    label: int
    model: Mesh | Figure
    s: float
    d: float
    heading: float
    speed: float
    fixed: bool
    sway: tuple[float, float, float]
    gait: float

    def place(self, time: float, vehicle_s: float) -> tuple[float, float, float, float]:
        """Where the actor is.

        Args:
            time: Seconds since the scene began.
            vehicle_s: Distance the own vehicle has driven, metres.

        Returns:
            s relative to the vehicle, d, heading relative to the road there, phase of the gait.
        """
        low, span = (-LENGTH_M / 2, LENGTH_M) if self.fixed else (BEHIND_M, AHEAD_M - BEHIND_M)
        s = (self.s + self.speed * time - vehicle_s - low) % span + low
        amount, rate, phase = self.sway
        d = self.d + amount * np.sin(rate * time + phase)
        return s, float(d), self.heading, self.gait * time + self.s


class _Crowd:
    """Adds actors and keeps vehicles from overlapping."""

    def __init__(self, town: Town, layout: Layout, rng: np.random.Generator) -> None:
        self.town, self.layout, self.rng = town, layout, rng
        self.actors: list[Actor] = []
        self._taken: list[tuple[float, float, float, float]] = [(1.4, 0.0, 6.0, 0.0)]

    def reserve(self, s: float, d: float, half_length: float, half_width: float) -> bool:
        for other_s, other_d, other_length, other_width in self._taken:
            if (
                abs(s - other_s) < half_length + other_length + 0.6
                and abs(d - other_d) < half_width + other_width + 0.1
            ):
                return False
        self._taken.append((s, d, half_length, half_width))
        return True

    def take_own_place(self, d: float) -> None:
        self._taken[0] = (1.4, d, 3.0, 1.0)

    def model(self, label: int) -> Mesh | Figure:
        rng = self.rng
        if label == CAR:
            return build_car(str(rng.choice(self.town.cars)), rng)
        if label == TRUCK:
            return build_truck(str(rng.choice(self.town.trucks)), rng)
        return draw_figure(label == CYCLIST, self.town.held_out, rng)

    def add(self, label: int, s: float, d: float, heading: float, speed: float = 0.0, fixed: bool = False,
            sway: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:  # fmt: skip
        model = self.model(label)
        length, width = (
            (model.size[0], model.size[1])
            if isinstance(model, Mesh)
            else (1.7, 0.7)
            if label == CYCLIST
            else (0.5, 0.5)
        )
        along = abs(np.cos(heading)) * length + abs(np.sin(heading)) * width
        across = abs(np.sin(heading)) * length + abs(np.cos(heading)) * width
        if not self.reserve(s, d, along / 2, across / 2):
            return
        pace = {CYCLIST: abs(speed) / 0.55, PEDESTRIAN: abs(speed) / 0.22}.get(label, 0.0)
        if label == PEDESTRIAN and sway[0]:
            pace = 6.0
        self.actors.append(Actor(len(self.actors) + 1, label, model, s, d, heading, speed, fixed, sway, pace))


def populate(
    town: Town, layout: Layout, own_lane: int, own_speed: float, rng: np.random.Generator
) -> tuple[Actor, ...]:
    """Draw the road users of one street.

    Args:
        town: Where the models come from.
        layout: Where the lanes and sidewalks are.
        own_lane: Lane of the own vehicle, 0 beside the centre line.
        own_speed: Its speed in m/s; 0 stands at a crossing and lets people pass.
        rng: Source of every choice.
    """
    crowd = _Crowd(town, layout, rng)
    crowd.take_own_place(-(own_lane + 0.5) * layout.lane_width)
    busy = float(rng.uniform(0.4, 1.3))

    def any_s() -> float:
        # Denser near the vehicle, where a camera can see.
        return float(np.clip(rng.normal(8, 34), BEHIND_M, AHEAD_M))

    for side, sign in ((0, -1.0), (1, 1.0)):
        base_heading = 0.0 if side == 0 else np.pi
        for lane in range(layout.lanes):
            d = sign * (lane + 0.5) * layout.lane_width
            speed = own_speed if side == 0 and lane == own_lane else own_speed * float(rng.uniform(0.6, 1.4))
            speed = speed if side == 0 else -speed
            for _ in range(rng.poisson(4.2 * busy)):
                label = TRUCK if rng.random() < 0.36 else CAR
                wander = float(rng.normal(0, 0.22))
                crowd.add(label, any_s(), d + wander, base_heading + float(rng.normal(0, 0.05)), speed)
        kerb, walk = layout.kerb(side), layout.kerb(side) + layout.verge[side]
        if layout.parking[side]:
            d = sign * (kerb - layout.parking[side] / 2)
            for _ in range(rng.poisson(9 * busy)):
                label = TRUCK if rng.random() < 0.14 else CAR
                turned = np.pi if rng.random() < 0.2 else 0.0
                crowd.add(label, any_s(), d, base_heading + turned + float(rng.normal(0, 0.03)), fixed=True)
        edge = layout.lanes * layout.lane_width
        bike_d = edge + layout.bike[side] / 2 if layout.bike[side] else edge - 0.6
        for _ in range(rng.poisson(4.0 * busy)):
            d = sign * (bike_d + float(rng.normal(0, 0.3)))
            crowd.add(CYCLIST, any_s(), d, base_heading, (1 if side == 0 else -1) * float(rng.uniform(3, 6.5)))
        for _ in range(rng.poisson(7.5 * busy)):
            d = sign * float(rng.uniform(walk + 0.4, walk + layout.sidewalk[side]))
            direction = 1 if rng.random() < 0.5 else -1
            pace = 0.0 if rng.random() < 0.15 else float(rng.uniform(0.8, 1.7))
            heading = (0.0 if direction > 0 else np.pi) + float(rng.normal(0, 0.2))
            if pace == 0.0:
                heading = float(rng.uniform(-np.pi, np.pi))
            crowd.add(PEDESTRIAN, any_s(), d, heading, direction * pace)
        for s, half in layout.junctions:  # waiting to turn in
            for _ in range(rng.poisson(0.9 * busy)):
                label = rng.choice([CAR, CAR, TRUCK, CYCLIST])
                at = s + sign * half / 2 * (1 if rng.random() < 0.8 else -1)
                d = sign * float(rng.uniform(kerb + 4, kerb + 14))
                turned = -sign * np.pi / 2 if rng.random() < 0.7 else sign * np.pi / 2
                at_relative = (at - BEHIND_M) % LENGTH_M + BEHIND_M
                crowd.add(int(label), at_relative, d, turned + float(rng.normal(0, 0.12)), fixed=True)
    for s in layout.crossings:
        near = (s - BEHIND_M) % LENGTH_M + BEHIND_M
        for _ in range(rng.poisson(2.2 * busy)):
            if own_speed == 0:
                heading = np.pi / 2 if rng.random() < 0.5 else -np.pi / 2
                middle = (layout.kerb(1) - layout.kerb(0)) / 2
                d = middle + float(rng.uniform(-layout.kerb(0), layout.kerb(1)))
                crowd.add(
                    PEDESTRIAN, near + float(rng.uniform(-1.3, 1.3)), d, heading, fixed=True, sway=(0.8, 0.7, 0.0)
                )
    for _ in range(rng.poisson(5.0 * busy)):  # those who are where nobody expects them
        label = int(rng.choice([CAR, TRUCK, CYCLIST, PEDESTRIAN], p=[0.25, 0.2, 0.3, 0.25]))
        d = float(rng.uniform(-layout.wall(0), layout.wall(1)))
        own_d = -(own_lane + 0.5) * layout.lane_width
        if abs(d - own_d) < 3.2:
            continue
        crowd.add(label, any_s(), d, float(rng.uniform(-np.pi, np.pi)), speed=own_speed)
    return tuple(crowd.actors)
