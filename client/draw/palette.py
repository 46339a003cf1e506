"""Colours, RGB. Classes differ in brightness as well as in hue, and stay apart in the usual colour blindnesses."""

from __future__ import annotations

Color = tuple[int, int, int]

BACKGROUND: Color = (15, 19, 26)
PANEL: Color = (22, 28, 37)
GRID: Color = (58, 68, 82)
TEXT: Color = (232, 237, 243)
MUTED: Color = (142, 154, 170)
INK: Color = (12, 15, 20)
DRIVABLE: Color = (38, 196, 160)
GOOD: Color = (96, 211, 148)
WARNING: Color = (255, 190, 70)
BAD: Color = (255, 96, 96)

_BY_LABEL: dict[str, Color] = {
    "car": (86, 180, 255),
    "truck": (255, 178, 56),
    "cyclist": (168, 235, 92),
    "pedestrian": (255, 112, 166),
}
_OTHERS: tuple[Color, ...] = ((196, 160, 255), (255, 236, 110), (110, 232, 232), (255, 150, 120))


def color_of(label: str, class_index: int) -> Color:
    """The colour of a class."""
    return _BY_LABEL.get(label, _OTHERS[class_index % len(_OTHERS)])


def blend(color: Color, other: Color, share: float) -> Color:
    """`color`, with a share of `other` from 0 to 1."""
    red, green, blue = (round(a * (1 - share) + b * share) for a, b in zip(color, other, strict=True))
    return red, green, blue
