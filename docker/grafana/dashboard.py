"""Writes `dashboards/monocoque.json`, the latency and memory dashboard, from the tables of panels below.

    python docker/grafana/dashboard.py           write it again
    python docker/grafana/dashboard.py --check   exit code 1 if it is not what this file says

Grafana's own JSON is 2,000 lines of which these are the ones that somebody decided.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

TARGET = Path(__file__).with_name("dashboards") / "monocoque.json"
DATASOURCE = {"type": "prometheus", "uid": "monocoque-prometheus"}
WIDTH = 24
FRAME_PERIOD_SECONDS = 0.0333
"""One frame at 30 frames/s."""

GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
STAGE_COLORS = {
    "transport": "#8AB8FF",
    "queue": "#FF9830",
    "decode": "#CA95E5",
    "batch": "#FFEE52",
    "preprocess": "#96D98D",
    "launch": "#F2CC0C",
    "inference": "#3274D9",
    "postprocess": "#37872D",
    "answer": "#C0D8FF",
    "total": "#FFFFFF",
}
STATUS_COLORS = {
    "ok": GREEN,
    "stale": YELLOW,
    "late": ORANGE,
    "client dropped": "#8F8F8F",
    "refused": "#CA95E5",
    "failed": RED,
    "torn": "#C4162A",
    "undelivered": BLUE,
    "waiting_for_keyframe": "#8AB8FF",
}
CAMERA = 'camera=~"$camera"'


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
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    stacked: bool = False
    colors: dict[str, str] = field(default_factory=dict)
    overlay: str | None = None
    mappings: dict[str, tuple[str, str]] = field(default_factory=dict)
    repeat: str | None = None
    decimals: int | None = None


def quantile(value: float, metric: str, by: str, labels: str = CAMERA) -> str:
    """A quantile of a histogram, per series of `by`."""
    grouping = f"{by}, le" if by else "le"
    return f"histogram_quantile({value}, sum by ({grouping}) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))"


def rate(metric: str, by: str, labels: str = CAMERA) -> str:
    """Events per second, per series of `by`."""
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


LATENCY = "monocoque_stage_latency_seconds"
AGE = "monocoque_frame_age_seconds"
FRAMES = "monocoque_frames_total"
CLIENT_DROPPED = "monocoque_client_dropped_frames_total"
BUDGET = ((None, GREEN), (FRAME_PERIOD_SECONDS, YELLOW), (3 * FRAME_PERIOD_SECONDS, RED))
SHARE = ((None, RED), (0.9, YELLOW), (0.99, GREEN))
LOST = ((None, GREEN), (0.05, YELLOW), (0.2, RED))

NOT_DROPPED = f'sum(rate({FRAMES}{{{CAMERA}, status="ok"}}[$__rate_interval]))'
EVERY_FRAME = (
    f"(sum(rate({FRAMES}{{{CAMERA}}}[$__rate_interval])) + sum(rate({CLIENT_DROPPED}{{{CAMERA}}}[$__rate_interval])))"
)

NOW = (
    Panel(
        "State",
        "Whether frames are accepted. Draining follows SIGTERM; see the log for any other reason.",
        (("min(monocoque_serving)", "state"),),
        "none",
        "stat",
        3,
        4,
        ((None, RED), (1, GREEN)),
        mappings={"0": ("not serving", RED), "1": ("serving", GREEN)},
    ),
    Panel(
        "Engine",
        "Degraded: the engine is not the one that was asked for, for example the CPU where a GPU is missing.",
        (("max(monocoque_engine_degraded)", "engine"),),
        "none",
        "stat",
        3,
        4,
        ((None, GREEN), (1, ORANGE)),
        mappings={"0": ("as asked for", GREEN), "1": ("degraded", ORANGE)},
    ),
    Panel(
        "Alerts firing",
        "Rules of docker/prometheus/alerts.yml that fire now. Their text is on Prometheus's page Alerts.",
        (('count(ALERTS{alertstate="firing"}) or vector(0)', "alerts"),),
        "none",
        "stat",
        3,
        4,
        ((None, GREEN), (1, RED)),
    ),
    Panel(
        "Frames answered",
        "Frames per second that were answered OK, all cameras together.",
        ((NOT_DROPPED, "fps"),),
        "suffix: fps",
        "stat",
        3,
        4,
        decimals=1,
    ),
    Panel(
        "Within one frame period",
        "Share of the answered frames whose result was out within 33 ms of capture: exact, 1/30 s is a bucket's bound.",
        (
            (
                f'sum(rate({AGE}_bucket{{{CAMERA}, le="0.03333"}}[$__rate_interval]))'
                f" / sum(rate({AGE}_count{{{CAMERA}}}[$__rate_interval]))",
                "share",
            ),
        ),
        "percentunit",
        "stat",
        3,
        4,
        SHARE,
        decimals=1,
    ),
    Panel(
        "Frame age p99, worst camera",
        "How old the world is in a result: capture to answer. Yellow from one frame period, red from three.",
        ((f"max({quantile(0.99, AGE, 'camera')})", "age"),),
        "s",
        "stat",
        3,
        4,
        BUDGET,
        decimals=1,
    ),
    Panel(
        "Frames lost",
        "Share of the captured frames that got no result: replaced by a fresher one, too late, refused or failed.",
        ((f"1 - {NOT_DROPPED} / {EVERY_FRAME}", "lost"),),
        "percentunit",
        "stat",
        3,
        4,
        LOST,
        decimals=1,
    ),
    Panel(
        "Memory of the server",
        "Resident memory of the server's process, the engine on the CPU included.",
        (('sum(monocoque_process_memory_bytes{kind="resident"})', "resident"),),
        "bytes",
        "stat",
        3,
        4,
        ((None, BLUE),),
    ),
)

LATENCY_ROW = (
    Panel(
        "Where the time goes, p50",
        "Median of each stage, stacked, over the cameras chosen above. The white line is the median of the total. "
        "Queue grows with load, inference with the engine, transport with the network.",
        (
            (quantile(0.5, LATENCY, "stage", f'{CAMERA}, stage!="total"'), "{{stage}}"),
            (quantile(0.5, LATENCY, "", f'{CAMERA}, stage="total"'), "total"),
        ),
        "s",
        width=12,
        height=9,
        steps=BUDGET,
        stacked=True,
        colors=STAGE_COLORS,
        overlay="total",
    ),
    Panel(
        "Where the time goes, p99",
        "99th percentile of each stage, stacked. A frame is rarely slow in every stage, so the white line, p99 of the "
        "total, lies below the stack: the higher the gap, the less the stages are slow together.",
        (
            (quantile(0.99, LATENCY, "stage", f'{CAMERA}, stage!="total"'), "{{stage}}"),
            (quantile(0.99, LATENCY, "", f'{CAMERA}, stage="total"'), "total"),
        ),
        "s",
        width=12,
        height=9,
        steps=BUDGET,
        stacked=True,
        colors=STAGE_COLORS,
        overlay="total",
    ),
    Panel(
        "Frame age by camera",
        "Capture to answer, p99 (and p50, thin). The alert MonocoqueFrameAgeHigh fires from 100 ms.",
        ((quantile(0.99, AGE, "camera"), "{{camera}} p99"), (quantile(0.5, AGE, "camera"), "{{camera}} p50")),
        "s",
        steps=BUDGET,
    ),
    Panel(
        "Latency by camera",
        "Sum of the stages of an answered frame, p99 and p50. Cameras with larger frames decode for longer.",
        (
            (quantile(0.99, LATENCY, "camera", f'{CAMERA}, stage="total"'), "{{camera}} p99"),
            (quantile(0.5, LATENCY, "camera", f'{CAMERA}, stage="total"'), "{{camera}} p50"),
        ),
        "s",
        steps=BUDGET,
    ),
    Panel(
        "Latency, every frame",
        "How many answered frames took how long. Two bands mean two kinds of frames, or a cold cache.",
        (
            (
                f'sum by (le) (increase({LATENCY}_bucket{{{CAMERA}, stage="total"}}[$__rate_interval]))',
                "{{le}}",
            ),
        ),
        "s",
        "heatmap",
    ),
    Panel(
        "Stages of $camera, p99",
        "99th percentile of each stage of one camera, stacked.",
        (
            (quantile(0.99, LATENCY, "stage", f'{CAMERA}, stage!="total"'), "{{stage}}"),
            (quantile(0.99, LATENCY, "", f'{CAMERA}, stage="total"'), "total"),
        ),
        "s",
        width=24,
        height=6,
        steps=BUDGET,
        stacked=True,
        colors=STAGE_COLORS,
        overlay="total",
        repeat="camera",
    ),
)

FLOW_ROW = (
    Panel(
        "Frames per second by camera",
        "Frames answered OK, each second. A camera that falls behind the others has its own reason below.",
        ((rate(FRAMES, "camera", f'{CAMERA}, status="ok"'), "{{camera}}"),),
        "suffix: fps",
    ),
    Panel(
        "Frames by status",
        "What became of every frame, per second. Stale and late are what keeps the rest fresh; refused, torn and "
        "failed carry a reason in their result.",
        ((rate(FRAMES, "status"), "{{status}}"),),
        "suffix: fps",
        stacked=True,
        colors=STATUS_COLORS,
    ),
    Panel(
        "Frames lost by cause",
        "Per second: replaced before they were sent (client dropped), replaced in the server (stale), too old (late), "
        "and those that went wrong.",
        (
            (rate(FRAMES, "status", f'{CAMERA}, status!="ok"'), "{{status}}"),
            (f"sum(rate({CLIENT_DROPPED}{{{CAMERA}}}[$__rate_interval]))", "client dropped"),
        ),
        "suffix: fps",
        stacked=True,
        colors=STATUS_COLORS,
    ),
    Panel(
        "Queue depth by camera",
        "Frames that wait for the engine when it is scraped. Freshest-frame cameras hold one at most.",
        ((f"sum by (camera) (monocoque_queue_depth_frames{{{CAMERA}}})", "{{camera}}"),),
        "short",
    ),
    Panel(
        "Batch size",
        "Frames per engine launch, mean and p99. On a CPU one frame at a time is fastest.",
        (
            (
                "sum(rate(monocoque_batch_size_frames_sum[$__rate_interval]))"
                " / sum(rate(monocoque_batch_size_frames_count[$__rate_interval]))",
                "mean",
            ),
            (quantile(0.99, "monocoque_batch_size_frames", "", ""), "p99"),
        ),
        "short",
    ),
    Panel(
        "Engine busy",
        "Share of the time that the engine's thread works, decoding included. Near 100 % frames are replaced instead "
        "of served.",
        (("sum by (instance) (rate(monocoque_engine_busy_seconds_total[$__rate_interval]))", "{{instance}}"),),
        "percentunit",
        steps=((None, GREEN), (0.8, YELLOW), (0.95, RED)),
    ),
    Panel(
        "Steadiness of ages",
        "Smoothed difference between the ages of one answer and the next (RFC 3550), and the error bound of the clock.",
        (
            (f"max by (camera) (monocoque_frame_age_jitter_seconds{{{CAMERA}}})", "{{camera}} jitter"),
            (f"max by (camera) (monocoque_frame_age_uncertainty_seconds{{{CAMERA}}})", "{{camera}} error bound"),
        ),
        "s",
        steps=((None, GREEN), (FRAME_PERIOD_SECONDS, YELLOW)),
        width=12,
    ),
    Panel(
        "Deadlines missed, clocks set",
        "Frames with a maximum age that were not answered within it, per second; and how often a clock was seen to be "
        "set rather than to run, within the last five minutes.",
        (
            (rate("monocoque_deadline_misses_total", "camera"), "{{camera}} missed"),
            ("sum by (clock) (increase(monocoque_clock_steps_total[5m]))", "{{clock}} clock set"),
        ),
        "short",
        width=12,
    ),
)

MEMORY_ROW = (
    Panel(
        "Engine memory by kind",
        "Weights, activations and input/output buffers. What a backend cannot know is absent: ONNX Runtime does not "
        "tell activations.",
        (("sum by (kind) (monocoque_engine_memory_bytes)", "{{kind}}"),),
        "bytes",
        width=6,
        stacked=True,
    ),
    Panel(
        "Process memory",
        "Resident memory of the server, and its peak. MonocoqueMemoryGrows fires when it is a fifth above an hour ago.",
        (("sum by (kind) (monocoque_process_memory_bytes)", "{{kind}}"),),
        "bytes",
        width=6,
    ),
    Panel(
        "GPU memory",
        "Used and total, where there is a GPU. On Jetson and DRIVE it is the machine's own memory.",
        (("sum by (kind) (monocoque_gpu_memory_bytes)", "{{kind}}"),),
        "bytes",
        width=6,
    ),
    Panel(
        "Processor",
        "Cores that the server's process keeps busy.",
        (('sum by (instance) (rate(process_cpu_seconds_total{job="monocoque"}[$__rate_interval]))', "{{instance}}"),),
        "short",
        width=6,
    ),
)

SERVER_ROW = (
    Panel(
        "Streams",
        "Open frame streams, their cameras, and subscribers to results.",
        (
            ("sum(monocoque_streams)", "streams"),
            ("sum(monocoque_cameras)", "cameras"),
            ("sum(monocoque_watchers)", "watchers"),
        ),
        "short",
        width=6,
    ),
    Panel(
        "Streams ended",
        "By gRPC status, within the last five minutes.",
        (("sum by (code) (increase(monocoque_streams_ended_total[5m]))", "{{code}}"),),
        "short",
        width=6,
        stacked=True,
    ),
    Panel(
        "Results that watchers missed",
        "Per second. A slow subscriber gets the latest result only and holds no frame up.",
        (("sum(rate(monocoque_watcher_missed_results_total[$__rate_interval]))", "missed"),),
        "suffix: /s",
        width=6,
    ),
    Panel(
        "Uptime",
        "Since the server's process started.",
        (('time() - max(process_start_time_seconds{job="monocoque"})', "uptime"),),
        "s",
        "stat",
        6,
    ),
    Panel(
        "What is running",
        "The engine digest is the SHA-256 of the bundle's manifest, and so of everything in the bundle; every result "
        "carries it.",
        (("monocoque_build_info", ""),),
        "none",
        "table",
        24,
        5,
    ),
)

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("Now", NOW),
    ("Latency", LATENCY_ROW),
    ("Frames", FLOW_ROW),
    ("Memory", MEMORY_ROW),
    ("Server", SERVER_ROW),
)


def build() -> Json:
    """The whole dashboard."""
    panels: list[Json] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {
                "type": "row",
                "id": len(panels) + 1,
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = height = 0
        for panel in row:
            if x + panel.width > WIDTH:
                y, x, height = y + height, 0, 0
            grid = {"h": panel.height, "w": panel.width, "x": x, "y": y}
            panels.append(_panel(panel, len(panels) + 1, grid))
            x, height = x + panel.width, max(height, panel.height)
        y += height
    return {
        "uid": "monocoque",
        "title": "Monocoque: latency and memory",
        "description": "Camera frames from capture to result, and the memory this takes.",
        "tags": ["monocoque"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "timepicker": {"refresh_intervals": ["5s", "10s", "30s", "1m"]},
        "timezone": "browser",
        "templating": {"list": [_camera_variable()]},
        "annotations": {"list": [_restarts()]},
        "links": [],
        "panels": panels,
    }


def _panel(panel: Panel, number: int, grid: Json) -> Json:
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


def _camera_variable() -> Json:
    query = f"label_values({FRAMES}, camera)"
    return {
        "name": "camera",
        "label": "Camera",
        "type": "query",
        "datasource": DATASOURCE,
        "definition": query,
        "query": {"query": query, "refId": "camera"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
        "hide": 0,
    }


def _restarts() -> Json:
    return {
        "name": "Restarts",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": RED,
        "expr": 'changes(process_start_time_seconds{job="monocoque"}[$__rate_interval]) > 0',
        "titleFormat": "The server restarted",
        "step": "5s",
    }


def main(arguments: list[str]) -> int:
    """Exit code of the command."""
    text = json.dumps(build(), indent=2, ensure_ascii=False) + "\n"
    if arguments == ["--check"]:
        if TARGET.read_text() == text:
            return 0
        sys.stderr.write(f"{TARGET} is not what {__file__} writes: run python {__file__}\n")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
