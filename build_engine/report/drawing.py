"""A block as a picture that flows downwards, so that it fits a narrow window: as trained, and as it is now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_BOX_HEIGHT = 26
_GAP_X = 12
_GAP_Y = 20
_MARGIN = 18


def before(nodes: Sequence[Mapping[str, Any]]) -> str:
    """The block as trained.

    Args:
        nodes: `Node`s of `build_engine.report.blocks`, as dicts.
    """
    lanes = _lanes(nodes)
    widths = [
        max(_text_width(n["label"]) for n, lane in zip(nodes, lanes, strict=True) if lane == which)
        for which in range(max(lanes) + 1)
    ]
    starts = [4.0]
    for width in widths:
        starts.append(starts[-1] + width + _GAP_X)
    middles = [start + width / 2 for start, width in zip(starts, widths, strict=False)]
    rows = 1 + max(node["column"] for node in nodes)
    total, height = starts[-1] - _GAP_X + 4, 2 * _MARGIN + rows * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    place = [(middles[lane], _top(node["column"])) for node, lane in zip(nodes, lanes, strict=True)]
    edges = [
        _edge(total / 2, 2, x, y) if source < 0 else _edge(place[source][0], place[source][1] + _BOX_HEIGHT, x, y)
        for node, (x, y) in zip(nodes, place, strict=True)
        for source in node["sources"]
    ]
    last = place[-1]
    edges.append(_edge(last[0], last[1] + _BOX_HEIGHT, last[0], height - 2))
    boxes = [
        _box(x, y, _text_width(node["label"]), node["label"], "was") for node, (x, y) in zip(nodes, place, strict=True)
    ]
    said = "as trained: " + ", ".join(node["label"] for node in nodes)
    return _svg(total, height, said, edges + boxes)


def after(labels: Sequence[str]) -> str:
    """What computes the block now.

    Args:
        labels: Of the nodes, in order; none where nothing has to be computed.
    """
    widths = [_text_width(label) for label in labels] or [60.0]
    total, height = max(widths) + 8, 2 * _MARGIN + max(1, len(labels)) * (_BOX_HEIGHT + _GAP_Y) - _GAP_Y
    middle = total / 2
    parts = [_edge(middle, 2, middle, _top(0))] if labels else [_edge(middle, 2, middle, height - 2)]
    for index, label in enumerate(labels):
        end = height - 2 if index == len(labels) - 1 else _top(index + 1)
        parts.append(_edge(middle, _top(index) + _BOX_HEIGHT, middle, end))
        parts.append(_box(middle, _top(index), _text_width(label), label, "now"))
    return _svg(total, height, "now: " + (", ".join(labels) or "nothing"), parts)


def _lanes(nodes: Sequence[Mapping[str, Any]]) -> list[int]:
    """A lane per node: a chain stays in its lane, a branch opens a new one."""
    lanes: list[int] = []
    taken: set[tuple[int, int]] = set()
    for node in nodes:
        known = [lanes[source] for source in node["sources"] if source >= 0]
        lane = min(known) if known else 0
        while (lane, node["column"]) in taken or (not known and any(other == lane for other in lanes)):
            lane += 1
        taken.add((lane, node["column"]))
        lanes.append(lane)
    return lanes


def _top(row: int) -> float:
    return _MARGIN + row * (_BOX_HEIGHT + _GAP_Y)


def _text_width(label: str) -> float:
    return max(34.0, 18 + 7.6 * len(label))


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (y1 + y2) / 2
    return f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {bend:.0f} {x2:.0f} {bend:.0f} {x2:.0f} {y2:.0f}" class="edge"/>'


def _box(x: float, y: float, width: float, label: str, kind: str) -> str:
    return (
        f'<rect x="{x - width / 2:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_BOX_HEIGHT}" rx="6" class="{kind}"/>'
        f'<text x="{x:.1f}" y="{y + _BOX_HEIGHT / 2 + 5:.1f}" text-anchor="middle" class="{kind}-text">'
        f"{escape(label)}</text>"
    )


def _svg(width: float, height: float, said: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" class="block" '
        f'role="img" aria-label="{escape(said)}">' + "".join(parts) + "</svg>"
    )
