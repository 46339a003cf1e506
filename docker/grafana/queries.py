"""What the dashboard's panels have in common: PromQL, thresholds, colours."""

from __future__ import annotations

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
