"""Charts as inline SVG: no script, no network, colours from the page's own variables."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

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
