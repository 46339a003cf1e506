"""Towns: palettes, street layouts, weathers and vehicle models that belong together.

Held-out towns share no palette, layout, weather or vehicle model with the training towns, so that a score
on them says how the network does in a place it has never seen.
"""

from dataclasses import dataclass

Range = tuple[float, float]
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Town:
    """What a street of this town is drawn from. Lengths are metres, colours RGB 0..255.

    Attributes:
        name: What a source specification calls it.
        held_out: True when training never sees it.
        facades: Wall colours.
        roofs: Roof colours; empty means flat roofs.
        floors: Least and most floors of a building.
        lot_width: Least and most frontage of a building.
        gap: Share of lots left open.
        setback: Distance from the sidewalk's outer edge to the walls.
        sidewalk: Sidewalk width.
        lanes: Lanes per direction, drawn uniformly.
        lane_width: Lane width.
        parking: Probability of a parking lane on each side.
        bike: Probability of a cycle lane on each side.
        verge: Probability of a grass verge between kerb and sidewalk.
        trees: Trees per 100 m and side.
        foliage: Leaf colours.
        asphalt: Grey level of the road surface.
        paving: Sidewalk colours.
        centre_line: Colour of the centre line, or None.
        shops: Probability that a building has shop fronts.
        cars: Names of the car models.
        trucks: Names of the truck models.
        weathers: Names of the weathers.
    """

    name: str
    held_out: bool
    facades: tuple[Colour, ...]
    roofs: tuple[Colour, ...]
    floors: tuple[int, int]
    lot_width: Range
    gap: float
    setback: Range
    sidewalk: Range
    lanes: tuple[int, ...]
    lane_width: Range
    parking: float
    bike: float
    verge: float
    trees: Range
    foliage: tuple[Colour, ...]
    asphalt: Range
    paving: tuple[Colour, ...]
    centre_line: Colour | None
    shops: float
    cars: tuple[str, ...]
    trucks: tuple[str, ...]
    weathers: tuple[str, ...]


_TRAINING_CARS = ("sedan", "hatchback", "suv", "minivan")
_TRAINING_TRUCKS = ("box_truck", "semi_trailer", "bus", "flatbed")
_HELD_OUT_CARS = ("pickup", "estate", "coupe")
_HELD_OUT_TRUCKS = ("tanker", "tipper", "coach")

_ALL: tuple[Town, ...] = (
    Town(
        "old_town", False,
        ((214, 190, 150), (196, 150, 120), (226, 214, 190), (170, 120, 96), (200, 178, 160)),
        ((140, 70, 52), (120, 62, 48)), (2, 5), (7, 14), 0.04, (0.0, 0.5), (1.8, 3.0), (1,), (3.0, 3.4),
        0.6, 0.2, 0.0, (0, 4), ((70, 100, 44), (96, 116, 50)), (92, 120), ((150, 144, 136), (134, 128, 122)),
        (226, 226, 222), 0.6, _TRAINING_CARS, _TRAINING_TRUCKS, ("clear", "overcast", "fog", "rain"),
    ),
    Town(
        "suburb", False,
        ((228, 224, 214), (206, 216, 220), (190, 120, 96), (236, 230, 206), (170, 180, 160)),
        ((96, 84, 80), (130, 84, 70), (70, 72, 78)), (1, 2), (9, 16), 0.35, (4.0, 9.0), (1.5, 2.2), (1,),
        (3.2, 3.7), 0.5, 0.15, 0.9, (4, 12), ((60, 104, 40), (84, 124, 48), (110, 130, 60)), (100, 128),
        ((176, 172, 166),), (228, 196, 70), 0.05, _TRAINING_CARS, _TRAINING_TRUCKS,
        ("clear", "overcast", "dusk", "rain"),
    ),
    Town(
        "downtown", False,
        ((120, 128, 140), (90, 96, 104), (164, 168, 170), (76, 86, 100), (150, 140, 128)),
        (), (5, 14), (16, 34), 0.08, (0.5, 4.0), (3.0, 5.5), (2, 3), (3.2, 3.6), 0.3, 0.3, 0.1, (1, 5),
        ((56, 90, 44), (72, 100, 50)), (74, 104), ((160, 160, 160), (140, 142, 146)), (236, 200, 64), 0.7,
        _TRAINING_CARS, _TRAINING_TRUCKS, ("clear", "overcast", "dusk", "fog", "rain"),
    ),
    Town(
        "industrial", False,
        ((150, 156, 160), (176, 170, 150), (110, 130, 150), (170, 110, 80), (130, 134, 130)),
        (), (1, 3), (20, 44), 0.3, (3.0, 10.0), (1.5, 2.5), (1, 2), (3.4, 3.9), 0.25, 0.1, 0.6, (0, 3),
        ((84, 98, 52), (100, 104, 60)), (86, 112), ((150, 150, 144),), (232, 232, 228), 0.1,
        _TRAINING_CARS, _TRAINING_TRUCKS, ("clear", "overcast", "fog", "rain"),
    ),
    Town(
        "riverside", False,
        ((186, 92, 76), (160, 80, 66), (206, 160, 120), (220, 206, 180), (140, 90, 78)),
        ((70, 66, 70), (90, 80, 78)), (3, 6), (8, 18), 0.12, (0.5, 3.0), (2.5, 4.5), (1, 2), (3.0, 3.5),
        0.5, 0.7, 0.3, (5, 11), ((74, 110, 40), (120, 126, 44), (150, 110, 40)), (80, 116),
        ((172, 150, 132), (160, 156, 150)), None, 0.4, _TRAINING_CARS, _TRAINING_TRUCKS,
        ("clear", "overcast", "dusk"),
    ),
    Town(
        "harbour", True,
        ((232, 236, 238), (120, 160, 176), (236, 206, 120), (210, 116, 90), (90, 124, 140)),
        ((60, 84, 96), (110, 116, 118)), (2, 4), (11, 24), 0.18, (0.2, 2.2), (2.2, 4.0), (1, 2), (3.1, 3.7),
        0.45, 0.4, 0.15, (1, 6), ((64, 112, 74), (92, 120, 84)), (108, 136), ((190, 178, 158), (170, 160, 150)),
        (240, 240, 240), 0.5, _HELD_OUT_CARS, _HELD_OUT_TRUCKS, ("sea_haze", "low_sun", "drizzle"),
    ),
    Town(
        "hillside", True,
        ((240, 226, 196), (226, 176, 130), (198, 134, 110), (206, 206, 176), (176, 150, 130)),
        ((176, 96, 60), (158, 84, 56)), (2, 6), (6, 20), 0.22, (0.5, 5.0), (1.6, 3.4), (1,), (3.0, 3.5),
        0.5, 0.3, 0.4, (3, 10), ((90, 110, 60), (64, 92, 52), (124, 120, 66)), (84, 124),
        ((186, 166, 146), (160, 150, 140)), (234, 228, 210), 0.35, _HELD_OUT_CARS, _HELD_OUT_TRUCKS,
        ("low_sun", "drizzle", "nightfall"),
    ),
)  # fmt: skip

TOWNS: dict[str, Town] = {town.name: town for town in _ALL}
"""Every town by name."""

TRAINING_TOWNS: tuple[Town, ...] = tuple(town for town in _ALL if not town.held_out)
"""Towns that training and the choice of thresholds may see."""

HELD_OUT_TOWNS: tuple[Town, ...] = tuple(town for town in _ALL if town.held_out)
"""Towns that only evaluation sees."""


def town_named(name: str) -> Town:
    """The town of that name; a ValueError names the known ones."""
    try:
        return TOWNS[name]
    except KeyError:
        raise ValueError(f"unknown town {name!r}; known towns: {', '.join(TOWNS)}") from None
