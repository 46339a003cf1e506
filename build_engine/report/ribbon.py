"""The whole network at a glance: every operator a dot, those that became one in a frame."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

_KINDS = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul"), "conv"),
    **dict.fromkeys(("BatchNormalization", "Mul", "Div", "Sub"), "norm"),
    **dict.fromkeys(("Add", "Sum", "Concat", "Mean"), "join"),
}


def kind(operator: str) -> str:
    """Which colour an operator has."""
    return _KINDS.get(operator, "other")


def ribbons(fusion: Mapping[str, Any]) -> tuple[str, str]:
    """The network as trained and fused, as HTML that wraps.

    Args:
        fusion: A fuser's report as `FuseReport.to_dict` gives it.
    """
    of_node = {node: region for region in fusion["regions"] for node in region["nodes"]}
    drawn: set[str] = set()
    before, after = [], []
    for step in fusion["live_before"]:
        region = of_node.get(step["node"])
        if region is None:
            dot = _dots([step["operator"]], f"{step['node']}: left as it is")
            before.append(dot)
            after.append(dot)
        elif region["name"] not in drawn:
            drawn.add(region["name"])
            now = [part for part in region["plan"].split(", ") if part != "nothing"]
            title = (
                f"{', '.join(region['modules']) or region['name']}: {', '.join(region['operators'])} → {region['plan']}"
            )
            before.append(_dots(region["operators"], title))
            after.append(_dots(now, title))
    return "".join(before), "".join(after)


def _dots(operators: list[str], title: str) -> str:
    dots = "".join(f'<i class="{kind(operator)}"></i>' for operator in operators)
    many = ' class="many"' if len(operators) > 1 else ""
    return f'<span{many} title="{escape(title)}">{dots}</span>' if operators else ""
