"""What the demo found out: as JSON, and as the short table that it ends with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

Json = Mapping[str, Any]

FILES = {
    "bundle": "the engine bundle: serve it with  python -m server",
    "bundle/report.html": "what was fused and saved, per layer",
    "mosaic.png": "six annotated cameras beside the view from above",
    "latency.png": "where a frame's time goes, and how it is spread",
    "summary.json": "every figure of this table, and more",
}
"""What lies in the output folder, and what it is."""


def summarise(report: Json, drive: Json, server: Json, seconds: Json) -> dict[str, Any]:
    """Everything worth keeping of a demo.

    Args:
        report: The bundle's `report.json`.
        drive: Summary of the streaming session.
        server: How the server ended.
        seconds: Time per step of the demo.
    """
    fusion = report["fusion"]
    return {
        "machine": report["machine"],
        "headline": report["headline"],
        "fusion": {"before": fusion["before"], "after": fusion["after"], "verification": fusion["verification"]},
        "memory": report["memory"],
        "compiled": [{key: value for key, value in plan.items() if key != "layers"} for plan in report["compiled"]],
        "latency": report["latency"],
        "accuracy": report["accuracy"],
        "drive": dict(drive),
        "server": dict(server),
        "seconds": dict(seconds),
    }


def table(summary: Json) -> Table:
    """The short table."""
    shown = Table(title="Monocoque, end to end", title_justify="left", title_style="bold", show_header=False)
    shown.add_column(style="bold")
    shown.add_column()
    for name, value in [*_built(summary), *_driven(summary)]:
        shown.add_row(name, value)
    return shown


def where_to_look(output: Path) -> Table:
    """What was left, and where."""
    shown = Table.grid(padding=(0, 2))
    for name, meaning in FILES.items():
        if (output / name).exists():
            shown.add_row(f"[cyan]{output / name}[/]", meaning)
    return shown


def _built(summary: Json) -> Iterator[tuple[str, str]]:
    before, after = summary["fusion"]["before"], summary["fusion"]["after"]
    yield "fusion", f"{before['nodes']} operators → {after['nodes']}, {_less(before['nodes'], after['nodes'])}"
    for row in summary["memory"]:
        sizes = row["bytes"]
        unfused, fused = sizes.get("unfused"), sizes.get("float")
        if unfused and fused:
            lower = [f"; {_graph(name)} {_mebibytes(size)}" for name, size in sizes.items() if name.endswith("int8")]
            saved = f"{_mebibytes(unfused)} → {_mebibytes(fused)}, {_less(unfused, fused)}"
            yield "memory", f"{saved}{''.join(lower)} ({row['account']})"
    single = {row["graph"]: row["median_ms"] for row in summary["latency"] if row["batch"] == 1}
    if single:
        threads = summary["machine"]["threads"]
        times = " → ".join(f"{_graph(name)} {time:.1f} ms" for name, time in single.items())
        yield "latency", f"{times} (this CPU, {threads} thread{'s' if threads != 1 else ''}, one frame)"
    for graph in summary["accuracy"]["graphs"]:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in graph["metric"].items())
        matched = graph.get("detections_f1")
        if matched is not None and graph["graph"] != "float":
            figures += f"; detections as FP32's at F1 {matched:.3f}"
        yield f"accuracy {_graph(graph['graph'])}", figures


def _driven(summary: Json) -> Iterator[tuple[str, str]]:
    drive = summary["drive"]
    engine, together = drive["engine"], drive["cameras"]["all"]
    cameras = len(drive["cameras"]) - 1
    latency, age = together["latency_ms"], together["age_ms"]
    yield (
        "stream",
        f"{cameras} cameras, {together['fps']:.1f} frames/s for {drive['seconds']:.0f} s, "
        f"{engine['precision']} on {engine['backend']}",
    )
    yield "send to return", f"p50 {latency['p50']:.1f} ms, p99 {latency['p99']:.1f} ms"
    yield "age when back", f"p50 {age['p50']:.1f} ms, p99 {age['p99']:.1f} ms"
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(together["statuses"].items()))
    yield (
        "frames",
        f"{together['submitted']} taken: {statuses}; {together['client_dropped']} dropped by the client, "
        f"{together['undelivered']} without an answer",
    )
    server = summary["server"]
    yield "server", f"stopped by SIGTERM in {server['stop_seconds']:.2f} s, exit code {server['exit_code']}"
    yield "time", f"{sum(summary['seconds'].values()):.0f} s in all"


def _graph(name: str) -> str:
    return {"unfused": "as trained", "float": "FP32", "cpu-int8": "INT8", "trt-int8": "INT8 (TensorRT)"}.get(name, name)


def _less(before: float, after: float) -> str:
    return f"{1 - after / before:.0%} less" if before else "–"


def _mebibytes(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
