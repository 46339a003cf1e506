"""Charts as inline SVG: no script, no network, colours from the page's own variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_ROW = 30
_LABEL = 150
_WIDTH = 680
_VALUE = 170


def bars(rows: Mapping[str, float], unit: str, digits: int = 1, accents: Mapping[str, str] | None = None) -> str:
    """Horizontal bars on one scale that starts at zero.

    Args:
        rows: Value by label, drawn in order.
        unit: Written behind every value.
        digits: After the decimal point.
        accents: CSS colour by label; others have the neutral one.
    """
    largest = max(rows.values(), default=0) or 1
    space = _WIDTH - _LABEL - _VALUE
    parts = []
    for index, (label, value) in enumerate(rows.items()):
        y = index * _ROW
        width = max(1.0, space * value / largest)
        color = (accents or {}).get(label, "var(--bar)")
        parts.append(
            f'<text x="{_LABEL - 10}" y="{y + 19}" text-anchor="end" class="label">{escape(label)}</text>'
            f'<rect x="{_LABEL}" y="{y + 5}" width="{width:.1f}" height="20" rx="3" fill="{color}"/>'
            f'<text x="{_LABEL + width + 8:.1f}" y="{y + 19}" class="value">{value:,.{digits}f} {escape(unit)}</text>'
        )
    described = "; ".join(f"{label}: {value:,.{digits}f} {unit}" for label, value in rows.items())
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_ROW * len(rows)}" role="img" aria-label="{escape(described)}" class="chart">'
        + "".join(parts)
        + "</svg>"
    )


_BOX_HEIGHT = 30
_GAP_X = 34
_GAP_Y = 14
_MARGIN = 26


def block(before: Sequence[Mapping[str, Any]], after: Sequence[str]) -> str:
    """A block as trained, an arrow, and what computes it now.

    Args:
        before: `Node`s of `build_engine.report.blocks`, as dicts.
        after: Labels of the nodes now.
    """
    rows = _rows(before)
    widths = _column_widths(before)
    starts = [float(_MARGIN)]
    for width in widths:
        starts.append(starts[-1] + width + _GAP_X)
    height = (max(rows) + 1) * (_BOX_HEIGHT + _GAP_Y) + _GAP_Y
    middle = height / 2
    place = [
        (starts[node["column"]], _GAP_Y + row * (_BOX_HEIGHT + _GAP_Y), widths[node["column"]])
        for node, row in zip(before, rows, strict=True)
    ]
    parts = []
    for node, (x, y, _) in zip(before, place, strict=True):
        for source in node["sources"]:
            sx, sy = (
                (4, middle) if source < 0 else (place[source][0] + place[source][2], place[source][1] + _BOX_HEIGHT / 2)
            )
            parts.append(_edge(sx, sy, x, y + _BOX_HEIGHT / 2))
    parts += [_box(x, y, w, node["label"], "was") for node, (x, y, w) in zip(before, place, strict=True)]
    last = place[-1]
    end = starts[-1] - _GAP_X + 8
    parts.append(_edge(last[0] + last[2], last[1] + _BOX_HEIGHT / 2, end + 14, last[1] + _BOX_HEIGHT / 2))
    x = end + 84.0
    parts.append(f'<path d="M{end + 32} {middle} h36 m-9 -7 l9 7 l-9 7" class="becomes"/>')
    if not after:
        parts.append(f'<text x="{x + 6}" y="{middle + 5}" class="label">nothing</text>')
    for label in after:
        width = _text_width(label)
        parts.append(_edge(x - 4, middle, x + 16, middle))
        parts.append(_box(x + 16, middle - _BOX_HEIGHT / 2, width, label, "now"))
        x += width + 20
    parts.append(_edge(x - 4, middle, x + 18, middle))
    total = x + 26
    said = " ".join(node["label"] for node in before)
    return (
        f'<svg viewBox="0 0 {total:.0f} {height}" width="{total:.0f}" height="{height}" role="img" class="block" '
        f'aria-label="{escape(said)} becomes {escape(", ".join(after))}">' + "".join(parts) + "</svg>"
    )


def _rows(nodes: Sequence[Mapping[str, Any]]) -> list[int]:
    """A row per node: a chain stays in its row, a branch opens a new one."""
    rows: list[int] = []
    taken: set[tuple[int, int]] = set()
    for node in nodes:
        known = [rows[source] for source in node["sources"] if source >= 0]
        row = min(known) if known else 0
        while (row, node["column"]) in taken or (not known and any(r == row for r in rows)):
            row += 1
        taken.add((row, node["column"]))
        rows.append(row)
    return rows


def _column_widths(nodes: Sequence[Mapping[str, Any]]) -> list[float]:
    columns = 1 + max(node["column"] for node in nodes)
    return [max(_text_width(n["label"]) for n in nodes if n["column"] == column) for column in range(columns)]


def _text_width(label: str) -> float:
    return max(34.0, 18 + 7.6 * len(label))


def _edge(x1: float, y1: float, x2: float, y2: float) -> str:
    bend = (x1 + x2) / 2
    return f'<path d="M{x1:.0f} {y1:.0f} C{bend:.0f} {y1:.0f} {bend:.0f} {y2:.0f} {x2:.0f} {y2:.0f}" class="edge"/>'


def _box(x: float, y: float, width: float, label: str, kind: str) -> str:
    return (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_BOX_HEIGHT}" rx="6" class="{kind}"/>'
        f'<text x="{x + width / 2:.0f}" y="{y + _BOX_HEIGHT / 2 + 5:.0f}" text-anchor="middle" class="{kind}-text">'
        f"{escape(label)}</text>"
    )
