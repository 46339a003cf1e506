"""One panel of the dashboard, and Grafana's JSON for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

DATASOURCE = {"type": "prometheus", "uid": "monocoque-prometheus"}


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: What is drawn.
        description: What to make of it; shown when the pointer rests on the title.
        queries: PromQL, with the legend of its series.
        unit: Grafana's name of the unit.
        kind: `timeseries`, `stat`, `heatmap` or `table`.
        width: Columns out of 24.
        steps: Thresholds: from this value on, this colour. The first one is None, the base.
        stacked: Whether the series add up.
        colors: Colour per series name.
        overlay: A series that is drawn as a line above the stack, for example the total.
        mappings: Words for values.
        repeat: Variable for each of whose values the panel is drawn once.
    """

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    stacked: bool = False
    colors: dict[str, str] = field(default_factory=dict)
    overlay: str | None = None
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeat: str | None = None
    decimals: int | None = None


def stat(
    title: str,
    description: str,
    query: str,
    legend: str,
    unit: str,
    steps: tuple[tuple[float | None, str], ...] = ((None, "green"),),
    *,
    mappings: dict[str, tuple[str, str]] | None = None,
    decimals: int | None = None,
) -> Panel:
    """One number, an eighth of the dashboard wide."""
    return Panel(
        title,
        description,
        ((query, legend),),
        unit,
        "stat",
        width=3,
        height=4,
        steps=steps,
        mappings=mappings or {},
        decimals=decimals,
    )


def as_json(panel: Panel, number: int, grid: Json) -> Json:
    """A panel as Grafana wants it.

    Args:
        panel: The panel.
        number: Its id.
        grid: Where it is drawn.
    """
    made: Json = {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": grid,
        "targets": [_target(panel, index) for index in range(len(panel.queries))],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel),
    }
    if panel.kind == "table":
        made["transformations"] = [
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True, "job": True}},
            }
        ]
    if panel.repeat:
        made |= {"repeat": panel.repeat, "repeatDirection": "h", "maxPerRow": 3}
    return made


def _target(panel: Panel, index: int) -> Json:
    expression, legend = panel.queries[index]
    target: Json = {
        "refId": chr(ord("A") + index),
        "datasource": DATASOURCE,
        "expr": expression,
        "legendFormat": legend or "__auto",
        "range": panel.kind in ("timeseries", "heatmap"),
        "instant": panel.kind in ("stat", "table"),
        "format": {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series"),
    }
    return target


def _defaults(panel: Panel) -> Json:
    defaults: Json = {
        "unit": panel.unit,
        "min": 0,
        "thresholds": {
            "mode": "absolute",
            "steps": [{"value": value, "color": color} for value, color in panel.steps],
        },
        "color": {"mode": "palette-classic" if panel.kind == "timeseries" else "thresholds"},
        "mappings": [
            {
                "type": "value",
                "options": {
                    value: {"text": text, "color": color, "index": index}
                    for index, (value, (text, color)) in enumerate(panel.mappings.items())
                },
            }
        ]
        if panel.mappings
        else [],
    }
    if panel.decimals is not None:
        defaults["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "lineInterpolation": "linear",
            "lineWidth": 1,
            "fillOpacity": 60 if panel.stacked else 8,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            # Lines at the frame period and at three of them, where the panel has thresholds.
            "thresholdsStyle": {"mode": "dashed" if len(panel.steps) > 1 else "off"},
        }
    return defaults


def _overrides(panel: Panel) -> list[Json]:
    overrides: list[Json] = []
    for name, color in panel.colors.items():
        properties: list[Json] = [{"id": "color", "value": {"mode": "fixed", "fixedColor": color}}]
        if name == panel.overlay:
            properties += [
                {"id": "custom.stacking", "value": {"mode": "none", "group": "B"}},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.lineWidth", "value": 2},
            ]
        overrides.append({"matcher": {"id": "byName", "options": name}, "properties": properties})
    if panel.kind == "timeseries" and any(legend.endswith(" p50") for _, legend in panel.queries):
        overrides.append(
            {
                "matcher": {"id": "byRegexp", "options": "/ p50$/"},
                "properties": [
                    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [4, 4]}},
                    {"id": "custom.fillOpacity", "value": 0},
                ],
            }
        )
    return overrides


def _options(panel: Panel) -> Json:
    if panel.kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "colorMode": "background",
            "graphMode": "none",
            "textMode": "value",
            "justifyMode": "center",
            "orientation": "auto",
        }
    if panel.kind == "heatmap":
        return {
            "calculate": False,
            "cellGap": 0,
            "color": {"mode": "scheme", "scheme": "Turbo", "steps": 64, "exponent": 0.5, "reverse": False},
            "filterValues": {"le": 1e-9},
            "rowsFrame": {"layout": "le"},
            "tooltip": {"mode": "single", "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "unit": panel.unit},
            "legend": {"show": False},
        }
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm"}
    return {
        "legend": {
            "displayMode": "table",
            "placement": "right" if panel.width >= 12 else "bottom",
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
