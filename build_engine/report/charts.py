"""Charts as plain HTML: no script, no network, colours from the page's own variables, text that keeps its size."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape


def bars(rows: Mapping[str, float], unit: str, digits: int = 1, accents: Mapping[str, str] | None = None) -> str:
    """Horizontal bars on one scale that starts at zero.

    Args:
        rows: Value by label, drawn in order.
        unit: Written behind every value.
        digits: After the decimal point.
        accents: CSS colour by label; others have the neutral one.
    """
    largest = max(rows.values(), default=0) or 1
    parts = []
    for label, value in rows.items():
        color = (accents or {}).get(label, "var(--bar)")
        parts.append(
            f"<span>{escape(label)}</span>"
            f'<i><b style="width:{100 * value / largest:.2f}%;background:{color}"></b></i>'
            f"<span>{value:,.{digits}f} {escape(unit)}</span>"
        )
    return f'<div class="bars">{"".join(parts)}</div>'
