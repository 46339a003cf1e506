"""`report.html` from `report.json`: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

from typing import Any

from build_engine.outcome import FLOAT, UNFUSED
from build_engine.report import charts, precision
from build_engine.report.fusion import FOLDER, drawn, environment
from build_engine.report.units import size

_NAMES = {
    UNFUSED: "as trained",
    FLOAT: "fused FP32",
    "cpu-int8": "INT8 (CPU)",
    "trt-int8": "INT8 (TensorRT)",
    "trt-fp16": "FP16",
    "trt-bf16": "BF16",
    "trt-fp8": "FP8",
}
_COLORS = {UNFUSED: "var(--trained)", FLOAT: "var(--fused)"}
_LOW = "var(--low)"


def page(facts: dict[str, Any]) -> str:
    """The page for a report's facts (see `build_engine.report.contents`)."""
    templates, modules = environment(), {layer["name"]: layer["module"] or layer["name"] for layer in facts["layers"]}
    templates.filters |= {"graph": graph_name, "shape": shape}
    return templates.get_template("report.html.j2").render(
        facts,
        style=(FOLDER / "report.css").read_text(),
        tiles=_tiles(facts),
        **drawn(facts["fusion"]),
        memory_charts=[(row["account"], _memory_chart(row)) for row in facts["memory"]],
        precision_plots=precision.plots(facts["quantization"], modules, graph_name),
        modules=modules,
        costs={layer["name"]: layer for layer in (facts["quantization"] or {"layers": []})["layers"]},
        latency_charts=_latency_charts(facts),
        metrics=sorted({name for graph in facts["accuracy"]["graphs"] for name in graph["metric"]}),
        largest_layer=max((layer["macs"] for layer in facts["layers"]), default=1) or 1,
        reference=facts["accuracy"]["graphs"][0],
    )


def shape(sizes: list[int | str]) -> str:
    """A tensor's sizes."""
    return " × ".join(map(str, sizes))


def graph_name(name: str) -> str:
    """What a person calls a graph."""
    return _NAMES.get(name, name)


def _tiles(facts: dict[str, Any]) -> list[dict[str, str]]:
    """The four figures that people ask for first."""
    before, after = facts["fusion"]["before"], facts["fusion"]["after"]
    compiled = next((row for row in facts["memory"] if row["compiled"] and UNFUSED in row["bytes"]), facts["memory"][0])
    old, new = compiled["bytes"][UNFUSED], compiled["bytes"][FLOAT]
    tiles = [
        {
            "title": "Kernels to launch",
            "value": f"{before['launches']} → {after['launches']}",
            "detail": f"{before['convolutions']} convolutions became {after['convolutions']}",
        },
        {
            "title": "Activation memory",
            "value": f"{size(old)} → {size(new)}",
            "detail": compiled["account"],
        },
    ]
    single = {row["graph"]: row["median_ms"] for row in facts["latency"] if row["batch"] == 1}
    if single:
        best = min((name for name in single if name != UNFUSED), key=single.__getitem__)
        tiles.append(
            {
                "title": "Latency on this CPU",
                "value": f"{single[UNFUSED]:.1f} → {single[best]:.1f} ms",
                "detail": f"{graph_name(best)}, one frame, {facts['machine']['threads']} thread(s), median",
            }
        )
    graphs = facts["accuracy"]["graphs"]
    if len(graphs) > 1:
        worst = min(graphs[1:], key=lambda graph: (graph["detections_f1"] or 0, _worst_output(graph)))
        value = (
            f"F1 {worst['detections_f1']:.3f}"
            if worst["detections_f1"] is not None
            else f"{100 * _worst_output(worst):.1f} %"
        )
        what = "detections" if worst["detections_f1"] is not None else "worst output"
        tiles.append(
            {"title": "Agreement with FP32", "value": value, "detail": f"{graph_name(worst['graph'])}, {what}"}
        )
    return tiles


def _worst_output(graph: dict[str, Any]) -> float:
    return min((float(output["agreement"]) for output in graph["outputs"]), default=1.0)


def _memory_chart(row: dict[str, Any]) -> str:
    values = {graph_name(name): value / 1e6 for name, value in row["bytes"].items()}
    return charts.bars(values, "MB", 1, _accents(row["bytes"]))


def _latency_charts(facts: dict[str, Any]) -> list[tuple[int, str]]:
    batches: dict[int, dict[str, float]] = {}
    for row in facts["latency"]:
        batches.setdefault(row["batch"], {})[row["graph"]] = row["median_ms"] / row["batch"]
    return [
        (batch, charts.bars({graph_name(n): v for n, v in values.items()}, "ms per frame", 2, _accents(values)))
        for batch, values in batches.items()
    ]


def _accents(names: Any) -> dict[str, str]:  # noqa: ANN401 - any iterable of graph names
    return {graph_name(name): _COLORS.get(name, _LOW) for name in names}
