"""What lower precision did not reach, and what it costs: the lines after the headline."""

from __future__ import annotations

from collections.abc import Sequence

from build_engine.lowered import Lowered
from build_engine.outcome import FLOAT, Built
from build_engine.report.layers import Layer, layers

FEW = 3
"""Names that a line has room for."""
TELLING = 1.05
"""A ratio of times below this may be chance."""


def stayed_out(built: Built) -> list[str]:
    """A sentence per graph of lower precision, and one about the budget where there was one; none for FP32."""
    if built.lowered is None:
        return []
    core = built.lowered.core
    rows = [row for row in layers(built) if row.name in (*core.weighted, *core.last)]
    found = [_layers_of(graph.name, graph.precision, rows) for graph in built.graphs if graph.name != FLOAT]
    return found + ([_against(built.lowered, built.options.metric, rows)] if built.lowered.found else [])


def slower(built: Built) -> list[str]:
    """A sentence where lower precision was measured to take longer than FP32; none where it gains, or was not timed."""
    single = {latency.graph: latency.median_ms for latency in built.latency if latency.batch == 1}
    return [
        f"{graph.name} is slower than FP32 on this CPU: {single[graph.name]:.2f} against {single[FLOAT]:.2f} ms; "
        "build it with --precision fp32, unless it is to run elsewhere"
        for graph in built.graphs
        if FLOAT in single and single.get(graph.name, 0) > TELLING * single[FLOAT]
    ]


def few(names: Sequence[str]) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def _layers_of(graph: str, precision: str, rows: Sequence[Layer]) -> str:
    apart = {row.name: row for row in rows if row.precision[graph] != precision}
    text = f"{graph}: {len(rows) - len(apart)} of {len(rows)} layers in {precision.upper()}"
    for other in dict.fromkeys(row.precision[graph] for row in apart.values()):
        names = [_called(row) for row in apart.values() if row.precision[graph] == other]
        text += f"; {len(names)} stayed {other.upper()}: {few(names)}"
    return text


def _against(lowered: Lowered, metric: str | None, rows: Sequence[Layer]) -> str:
    found = lowered.found
    assert found is not None and lowered.budget is not None  # noqa: S101 - the caller has looked
    text = f"budget: {found.drop:.2g} points lost of {lowered.budget:g} allowed"
    text += f" ({found.worst})" if found.drop > 0 else ""
    text += f", judged by {lowered.judge}" if metric is None else ""
    names = [_called(row) for row in rows if row.name in found.kept]
    return (
        f"{text}; to keep it, {len(names)} stayed out: {few(names)}" if names else f"{text}; no layer had to stay out"
    )


def _called(layer: Layer) -> str:
    return layer.module or layer.name
