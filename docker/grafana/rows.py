"""What the dashboard shows: every panel, row by row, with the PromQL it asks."""

from __future__ import annotations

from panel import Panel, stat  # beside this file
from queries import (
    AGE,
    BLUE,
    BUDGET,
    CAMERA,
    CLIENT_DROPPED,
    EVERY_FRAME,
    FRAME_PERIOD_SECONDS,
    FRAMES,
    GREEN,
    LATENCY,
    LOST,
    NOT_DROPPED,
    ORANGE,
    RED,
    SHARE,
    STAGE_COLORS,
    STATUS_COLORS,
    YELLOW,
    quantile,
    rate,
)


def stages(title: str, description: str, value: float, *, width: int, height: int, repeat: str | None = None) -> Panel:
    """A quantile of every stage, stacked, with the total's as a line."""
    return Panel(
        title,
        description,
        (
            (quantile(value, LATENCY, "stage", f'{CAMERA}, stage!="total"'), "{{stage}}"),
            (quantile(value, LATENCY, "", f'{CAMERA}, stage="total"'), "total"),
        ),
        "s",
        width=width,
        height=height,
        steps=BUDGET,
        stacked=True,
        colors=STAGE_COLORS,
        overlay="total",
        repeat=repeat,
    )


NOW = (
    stat(
        "State",
        "Whether frames are computed. Draining follows SIGTERM; python -m client state has any other reason.",
        "min(monocoque_serving)",
        "state",
        "none",
        ((None, RED), (1, GREEN)),
        mappings={"0": ("not serving", RED), "1": ("serving", GREEN)},
    ),
    stat(
        "Engine",
        "Degraded: an engine is not the one that was asked for, for example the CPU where a GPU is missing.",
        "max(monocoque_engine_degraded)",
        "engine",
        "none",
        ((None, GREEN), (1, ORANGE)),
        mappings={"0": ("as asked for", GREEN), "1": ("degraded", ORANGE)},
    ),
    stat(
        "Alerts firing",
        "Rules of docker/prometheus/alerts.yml that fire now. Their text is on Prometheus's page Alerts.",
        'count(ALERTS{alertstate="firing"}) or vector(0)',
        "alerts",
        "none",
        ((None, GREEN), (1, RED)),
    ),
    stat(
        "Frames answered",
        "Frames per second that were answered OK, all cameras together.",
        NOT_DROPPED,
        "fps",
        "suffix: fps",
        decimals=1,
    ),
    stat(
        "Within one frame period",
        "Share of the answered frames whose result was out within 33 ms of capture: exact, 1/30 s is a bucket's bound.",
        f'sum(rate({AGE}_bucket{{{CAMERA}, le="0.03333"}}[$__rate_interval]))'
        f" / sum(rate({AGE}_count{{{CAMERA}}}[$__rate_interval]))",
        "share",
        "percentunit",
        SHARE,
        decimals=1,
    ),
    stat(
        "Frame age p99, worst camera",
        "How old the world is in a result: capture to answer. Yellow from one frame period, red from three.",
        f"max({quantile(0.99, AGE, 'camera')})",
        "age",
        "s",
        BUDGET,
        decimals=1,
    ),
    stat(
        "Frames lost",
        "Share of the captured frames that got no result: replaced by a fresher one, too late, refused or failed.",
        f"1 - {NOT_DROPPED} / {EVERY_FRAME}",
        "lost",
        "percentunit",
        LOST,
        decimals=1,
    ),
    stat(
        "Memory of the server",
        "Resident memory of the server's process, the engine on the CPU included.",
        'sum(monocoque_process_memory_bytes{kind="resident"})',
        "resident",
        "bytes",
        ((None, BLUE),),
    ),
)

LATENCY_ROW = (
    stages(
        "Where the time goes, p50",
        "Median of each stage, stacked, over the cameras chosen above. The white line is the median of the total. "
        "Queue grows with load, inference with the engine, transport with the network.",
        0.5,
        width=12,
        height=9,
    ),
    stages(
        "Where the time goes, p99",
        "99th percentile of each stage, stacked. A frame is rarely slow in every stage, so the white line, p99 of the "
        "total, lies below the stack: the higher the gap, the less the stages are slow together.",
        0.99,
        width=12,
        height=9,
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
    stages(
        "Stages of $camera, p99",
        "99th percentile of each stage of one camera, stacked.",
        0.99,
        width=24,
        height=6,
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
        "set rather than to run (client, server), or a camera's capture times to be of another clock than declared "
        "(capture), within the last five minutes.",
        (
            (rate("monocoque_deadline_misses_total", "camera"), "{{camera}} missed"),
            ("sum by (clock) (increase(monocoque_clock_steps_total[5m]))", "clock: {{clock}}"),
        ),
        "short",
        width=12,
    ),
)

ENGINE_ROW = (
    Panel(
        "Inferences per second",
        "By engine and version: camera frames and requests of the Open Inference Protocol, every entry of a batch.",
        (("sum by (model, version) (rate(nv_inference_count[$__rate_interval]))", "{{model}} {{version}}"),),
        "suffix: /s",
    ),
    Panel(
        "Inferences that failed",
        "Per second: requests that failed, and frames that failed or were late when their turn came.",
        (
            (
                "sum by (model, version) (rate(nv_inference_request_failure[$__rate_interval]))",
                "{{model}} {{version}}",
            ),
        ),
        "suffix: /s",
        steps=((None, GREEN), (0.1, RED)),
    ),
    Panel(
        "Engine busy",
        "Share of the time that an engine's thread works, decoding included. Near 100 % frames are replaced instead "
        "of served.",
        (
            (
                "sum by (engine, engine_version) (rate(monocoque_engine_busy_seconds_total[$__rate_interval]))",
                "{{engine}} {{engine_version}}",
            ),
        ),
        "percentunit",
        steps=((None, GREEN), (0.8, YELLOW), (0.95, RED)),
    ),
    Panel(
        "Time of an inference by part",
        "Mean of frames and requests: waiting for their turn, making the input, the engine, taking the output.",
        tuple(
            (
                f"sum(rate(nv_inference_{part}_duration_us[$__rate_interval]))"
                " / sum(rate(nv_inference_request_success[$__rate_interval])) / 1e6",
                part.removeprefix("compute_"),
            )
            for part in ("queue", "compute_input", "compute_infer", "compute_output")
        ),
        "s",
        steps=BUDGET,
        stacked=True,
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
        "Engine memory",
        "Weights, activations and input/output buffers; what a backend does not tell is absent. Activations of ONNX "
        "Runtime are what the process grew by while the engine was opened.",
        (
            (
                "sum by (engine, engine_version, kind) (monocoque_engine_memory_bytes)",
                "{{engine}} {{engine_version}} {{kind}}",
            ),
        ),
        "bytes",
        stacked=True,
    ),
    Panel(
        "Engines rolled back",
        "Within the last hour: the one before serves again since the one swapped into its place failed its first "
        "frames. The log has the reasons.",
        (("sum by (engine) (increase(monocoque_engine_rollbacks_total[1h]))", "{{engine}}"),),
        "short",
        width=8,
        height=5,
        steps=((None, GREEN), (1, RED)),
    ),
    Panel(
        "Engines opened again",
        "Within the last hour: tries to open an engine again whose process had died (--engine-process). The log has "
        "the causes.",
        (("sum by (engine) (increase(monocoque_engine_restarts_total[1h]))", "{{engine}}"),),
        "short",
        width=8,
        height=5,
        steps=((None, GREEN), (1, RED)),
    ),
    Panel(
        "Instances that compute",
        "Of each engine; fewer than --instances while one whose process died is opened again.",
        (("sum by (engine, engine_version) (monocoque_engine_instances)", "{{engine}} {{engine_version}}"),),
        "short",
        width=8,
        height=5,
        steps=((None, RED), (1, GREEN)),
    ),
)

MEMORY_ROW = (
    Panel(
        "Process memory",
        "Resident memory of the server, and its peak. MonocoqueMemoryGrows fires when it is a fifth above an hour ago.",
        (("sum by (kind) (monocoque_process_memory_bytes)", "{{kind}}"),),
        "bytes",
        width=8,
    ),
    Panel(
        "GPU memory",
        "Used and total, where there is a GPU. On Jetson and DRIVE it is the machine's own memory.",
        (("sum by (kind) (monocoque_gpu_memory_bytes)", "{{kind}}"),),
        "bytes",
        width=8,
    ),
    Panel(
        "Processor",
        "Cores that the server's process keeps busy.",
        (('sum by (instance) (rate(process_cpu_seconds_total{job="monocoque"}[$__rate_interval]))', "{{instance}}"),),
        "short",
        width=8,
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
    ("Engines", ENGINE_ROW),
    ("Memory", MEMORY_ROW),
    ("Server", SERVER_ROW),
)
