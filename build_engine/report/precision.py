"""How precision was lowered: the facts, and the plot of what each layer costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from build_engine.compile.tensorrt import Compiled
from build_engine.outcome import FLOAT, Built
from build_engine.quantize import PLAIN

_WIDTH, _HEIGHT = 680, 210
_LEFT, _BOTTOM, _TOP = 66, 26, 12
COLORS = ("var(--fused)", "var(--low)", "var(--warn)")


def quantization(built: Built) -> dict[str, Any] | None:
    """Everything that was decided and measured on the way to lower precision; None for FP32."""
    lowered = built.lowered
    if lowered is None:
        return None
    return {
        "method": str(lowered.choice) if lowered.choice else None,
        "samples": len(built.samples.inputs) if built.samples else 0,
        "skipped": list(built.samples.skipped) if built.samples else [],
        "weighted_layers": len(lowered.core.weighted) + len(lowered.core.last),
        "integer_kernels": built.integer_kernels,
        "integer_layers_compiled": {
            f"{compiled.target}": _integer_layers(compiled)
            for compiled in built.compiled
            if compiled.graph in ("trt-int8", "trt-fp8")
        },
        "tried": [
            {"choice": str(one.choice), "plain": one.choice == PLAIN, "noise": one.noise} for one in lowered.tried
        ],
        "budget": None
        if lowered.found is None
        else {
            "points": lowered.budget,
            "judge": lowered.judge,
            "drop": lowered.found.drop,
            "worst": lowered.found.worst,
            "kept": sorted(lowered.found.kept),
            "trials": [
                {"kept": trial.kept, "drop": trial.drop, "at_least": not trial.complete, "worst": trial.worst}
                for trial in lowered.found.trials
            ],
        },
        "layers": [
            {
                "name": name,
                "sensitivity": lowered.found.sensitivity.get(name) if lowered.found else None,
                "error": {graph: errors[name] for graph, errors in lowered.errors.items() if name in errors},
                "kept": bool(lowered.found and name in lowered.found.kept),
            }
            for name in (*lowered.core.weighted, *lowered.core.last)
            if name in lowered.core.weighted or any(name in errors for errors in lowered.errors.values())
        ],
        "graphs": {
            graph.name: {
                "nodes": len(graph.low_precision_nodes),
                "kept_float": graph.kept_float,
                "half": len(graph.half_nodes),
            }
            for graph in built.graphs
            if graph.name != FLOAT
        },
    }


def plots(
    facts: Mapping[str, Any] | None, modules: Mapping[str, str], graph_name: Callable[[str], str]
) -> list[tuple[str, str]]:
    """Title and SVG of each plot that the facts allow.

    Args:
        facts: From `quantization`.
        modules: What a person calls a layer, by its node.
        graph_name: What a person calls a graph.
    """
    if facts is None:
        return []
    layers, found = facts["layers"], []
    kept = [bool(layer["kept"]) for layer in layers]
    names = [modules.get(layer["name"], layer["name"]) for layer in layers]
    if any(layer["sensitivity"] is not None for layer in layers):
        alone = {"alone in lower precision": [layer["sensitivity"] for layer in layers]}
        found.append(("Sensitivity: noise at the network's end from each layer alone", bars(names, alone, kept)))
    graphs = list(dict.fromkeys(graph for layer in layers for graph in layer["error"]))
    if graphs:
        series = {graph_name(graph): [layer["error"].get(graph) for layer in layers] for graph in graphs}
        found.append(("Error of each layer's output, as it has built up to there", bars(names, series, kept)))
    return found


def ticks(largest: float) -> list[float]:
    """Round values from 0 up to the first that is no less than the largest, two to five steps of 1, 2 or 5 apart."""
    magnitude = 10.0 ** math.floor(math.log10(largest))
    step = next(
        step for step in (0.2 * magnitude, 0.5 * magnitude, magnitude, 2 * magnitude) if largest <= 5.0001 * step
    )
    return [step * count for count in range(math.ceil(largest / step - 1e-9) + 1)]


def bars(names: Sequence[str], series: Mapping[str, Sequence[float | None]], kept: Sequence[bool]) -> str:
    """Layers from left to right, relative error in per cent upwards; layers kept out have a grey band behind them."""
    largest = max((value for values in series.values() for value in values if value is not None), default=0) or 1
    marks = ticks(largest)
    step = (_WIDTH - _LEFT) / max(1, len(names))
    floor = _HEIGHT - _BOTTOM

    def y(value: float) -> float:
        return floor - (floor - _TOP) * value / marks[-1]

    parts = [
        f'<line x1="{_LEFT}" x2="{_WIDTH}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="var(--line)"/>'
        f'<text x="{_LEFT - 8}" y="{y(mark) + 4:.1f}" text-anchor="end" class="label">{100 * mark:.3g} %</text>'
        for mark in marks
    ]
    for index, out in enumerate(kept):
        if out:
            parts.append(
                f'<rect x="{_LEFT + index * step:.1f}" y="{_TOP}" width="{step:.1f}" height="{floor - _TOP}" '
                'fill="var(--line)" opacity=".55"/>'
            )
    width = max(2.0, 0.7 * step / len(series))
    for number, values in enumerate(series.values()):
        for index, value in enumerate(values):
            if value is not None:
                x, high = _LEFT + index * step + 0.15 * step + number * width, max(1.0, floor - y(value))
                parts.append(
                    f'<rect x="{x:.1f}" y="{y(value):.1f}" width="{width:.1f}" height="{high:.1f}" '
                    f'fill="{COLORS[number % len(COLORS)]}">'
                    f"<title>{escape(names[index])}: {100 * value:.2f} %</title></rect>"
                )
    x = float(_LEFT)
    legend = [(name, COLORS[number % len(COLORS)]) for number, name in enumerate(series)]
    for name, color in [*legend, ("kept out", "var(--line)")] if any(kept) else legend:
        parts.append(
            f'<rect x="{x:.0f}" y="{_HEIGHT - 12}" width="10" height="10" fill="{color}"/>'
            f'<text x="{x + 15:.0f}" y="{_HEIGHT - 3}" class="label">{escape(name)}</text>'
        )
        x += 40 + 7.2 * len(name)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" class="chart" role="img" '
        f'aria-label="{escape(", ".join(series))} over {len(names)} layers">' + "".join(parts) + "</svg>"
    )


def _integer_layers(compiled: Compiled) -> int:
    """Layers that a plan multiplies in INT8: some kernel reads their weights as dequantized from INT8."""
    sources = {source for layer in compiled.plan.layers for source in layer.sources}
    return sum("weight" in source and source.endswith("_DequantizeLinear") for source in sources)
