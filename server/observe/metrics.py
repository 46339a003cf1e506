"""What Prometheus sees: every metric of the server, by its final name.

Label values are bounded: a camera gets its own series while fewer than `max_cameras` names have been seen, after
that it is counted as `other`, so no client can grow the scrape without bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector

from server.observe.histogram import Histogram

OTHER_CAMERA = "other"
"""Label of every camera past the limit."""

STAGES = (
    "transport",
    "queue",
    "decode",
    "batch",
    "preprocess",
    "launch",
    "inference",
    "postprocess",
    "answer",
    "total",
)
"""Values of the label `stage`: the fields of `Ledger`, and their sum."""

STATUSES = (
    "ok",
    "stale",
    "late",
    "refused",
    "waiting_for_keyframe",
    "torn",
    "failed",
    "undelivered",
)
"""Values of the label `status`: the names of `Status`, and frames whose stream closed before their answer."""

ENGINE_LABELS = ("engine", "engine_version")
"""Labels of what belongs to one of the engines that are served: its bundle's name and version."""

FRAME_PERIOD_SECONDS = 1 / 30
BUCKET_RATIO = 1.29
LATENCY_BUCKETS_SECONDS = tuple(
    float(f"{FRAME_PERIOD_SECONDS * BUCKET_RATIO**exponent:.4g}") for exponent in range(-19, 15)
)
"""0.26 ms to 1.2 s. A quantile read from them is off by at most 29 %, and 1/30 s is one of the bounds, so the part of
frames within one period is exact."""
BATCH_BUCKETS_FRAMES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


TRITON_METRICS = {
    "nv_inference_request_success": "Requests that were answered; a camera's frame that was computed is one.",
    "nv_inference_request_failure": "Requests that failed, and frames that failed or were late for their turn.",
    "nv_inference_count": "Entries of the batches of all requests.",
    "nv_inference_exec_count": "Launches of the engine.",
    "nv_inference_request_duration_us": "Time of requests from receipt to answer, in microseconds, summed.",
    "nv_inference_queue_duration_us": "Time they waited for their turn.",
    "nv_inference_compute_input_duration_us": "Time of copying their inputs.",
    "nv_inference_compute_infer_duration_us": "Time of the engine.",
    "nv_inference_compute_output_duration_us": "Time of copying their outputs.",
}
"""Triton's names for what an engine does, whoever asks: requests of the Open Inference Protocol and camera frames. They
are counters, as Triton's are, without the `_total` that prometheus-client would add to a counter's name."""


Kind = TypeVar("Kind", Counter, Gauge, Histogram)


class Family(Generic[Kind]):
    """One metric and its series, so that a hot path pays for no lookup and a scrape can take one series at a time.

    Args:
        metric: The prometheus-client object; its labels are taken from it.
        label_names: Names of its labels, in order.
        only_grows: Whether a gauge is shown as the counter that it is; see `TRITON_METRICS`.
    """

    def __init__(self, metric: Kind, label_names: tuple[str, ...], only_grows: bool = False) -> None:
        self.metric: Kind = metric
        self.only_grows = only_grows
        self.label_names = label_names
        self.series: dict[tuple[str, ...], Kind] = {} if label_names else {(): metric}

    def __call__(self, *values: str) -> Kind:
        """The series with these label values, made when it is first asked for."""
        found = self.series.get(values)
        if found is None:
            found = self.series[values] = self.metric.labels(*values)
        return found

    def remove(self, *values: str) -> None:
        """Forget one series."""
        if self.series.pop(values, None) is not None:
            self.metric.remove(*values)


@dataclass
class AgeTrack:
    """How steady a camera's answers are. Gauges are set from it when someone asks.

    Attributes:
        jitter_ns: Smoothed difference between the ages of one answer and the next (RFC 3550, section 6.4.1).
        uncertainty_ns: Error bound of the last age.
    """

    jitter_ns: float = 0.0
    uncertainty_ns: int = 0
    _last_ns: int | None = None

    def observe(self, age_ns: int, uncertainty_ns: int) -> None:
        """Take an answer's age into account."""
        if self._last_ns is not None:
            self.jitter_ns += (abs(age_ns - self._last_ns) - self.jitter_ns) / 16
        self._last_ns, self.uncertainty_ns = age_ns, uncertainty_ns


@dataclass(frozen=True)
class CameraMetrics:
    """The series of one camera, resolved once."""

    stages: Mapping[str, Histogram]
    frames: Mapping[str, Counter]
    age: Histogram
    client_dropped: Counter
    deadline_misses: Counter
    track: AgeTrack

    def observe(self, stages: Mapping[str, int], age_ns: int, uncertainty_ns: int) -> None:
        """Count the times of a frame that was answered OK.

        Args:
            stages: Nanoseconds per stage.
            age_ns: Its age.
            uncertainty_ns: Error bound of that.
        """
        for stage, duration_ns in stages.items():
            self.stages[stage].observe(duration_ns / 1e9)
        self.age.observe(age_ns / 1e9)
        self.track.observe(age_ns, uncertainty_ns)


@dataclass
class Metrics:
    """All metrics of one server, in a registry of their own.

    Args:
        max_cameras: Values of the label `camera` besides `other`.
    """

    max_cameras: int
    registry: CollectorRegistry = field(default_factory=lambda: CollectorRegistry(auto_describe=False))

    def __post_init__(self) -> None:
        self.families: list[Family[Any]] = []
        self._cameras: dict[str, CameraMetrics] = {}
        latency = LATENCY_BUCKETS_SECONDS
        self.stage_latency = self._histogram(
            "monocoque_stage_latency_seconds",
            "Time of a frame that was answered OK in each stage of its life; total is their sum.",
            ("stage", "camera"),
            latency,
        )
        self.frames = self._counter("monocoque_frames", "Frames by what became of them.", ("camera", "status"))
        self.frame_age = self._histogram(
            "monocoque_frame_age_seconds",
            "Age at the answer of a frame that was answered OK: since capture, or since receipt for unknown clocks.",
            ("camera",),
            latency,
        )
        self.client_dropped = self._counter(
            "monocoque_client_dropped_frames", "Frames that a client replaced before it could send them.", ("camera",)
        )
        self.deadline_misses = self._counter(
            "monocoque_deadline_misses",
            "Frames with a maximum age that were not answered OK within it, replaced ones apart.",
            ("camera",),
        )
        self.age_jitter = self._gauge(
            "monocoque_frame_age_jitter_seconds",
            "Smoothed difference between the ages of one answer and the next (RFC 3550).",
            ("camera",),
        )
        self.age_uncertainty = self._gauge(
            "monocoque_frame_age_uncertainty_seconds", "Error bound of the last frame's age.", ("camera",)
        )
        self.queue_depth = self._gauge("monocoque_queue_depth_frames", "Frames waiting for the engine.", ("camera",))
        self.batch_size = self._histogram(
            "monocoque_batch_size_frames", "Frames per engine launch.", (), BATCH_BUCKETS_FRAMES
        )
        self.engine_busy = self._counter(
            "monocoque_engine_busy_seconds",
            "Time an engine's threads spent on frames and requests, decoding included.",
            ENGINE_LABELS,
        )
        self.engine_memory = self._gauge(
            "monocoque_engine_memory_bytes",
            "Memory of an engine's instance: weights, activations, input_output. A kind that is not known is absent.",
            (*ENGINE_LABELS, "kind"),
        )
        self.process_memory = self._gauge(
            "monocoque_process_memory_bytes", "Memory of the server: resident, peak.", ("kind",)
        )
        self.gpu_memory = self._gauge(
            "monocoque_gpu_memory_bytes", "Memory of the GPU, where there is one: used, total.", ("kind",)
        )
        self.streams = self._gauge("monocoque_streams", "Open frame streams.", ())
        self.cameras = self._gauge("monocoque_cameras", "Cameras of the open streams.", ())
        self.camera_expected = self._gauge(
            "monocoque_camera_expected",
            "1 once a camera's stream has opened, also where it broke off; 0 where its client ended it in order.",
            ("camera",),
        )
        self.watchers = self._gauge("monocoque_watchers", "Subscribers to results or to the state.", ())
        self.streams_ended = self._counter(
            "monocoque_streams_ended", "Streams by the status they ended with.", ("code",)
        )
        self.clock_steps = self._counter(
            "monocoque_clock_steps",
            "Times that a clock was seen to be set: a client's, or the server's UTC; cameras with wrong capture times.",
            ("clock",),
        )
        for clock in ("client", "server", "capture"):  # a step that never came is a 0, not a series that is missing
            self.clock_steps(clock)
        self.watcher_missed = self._counter(
            "monocoque_watcher_missed_results", "Results that slow subscribers did not get.", ()
        )
        self.serving = self._gauge(
            "monocoque_serving", "1 while frames are computed, 0 while starting, draining or failed.", ()
        )
        self.degraded = self._gauge(
            "monocoque_engine_degraded", "1 where an engine is not the one that was asked for.", ENGINE_LABELS
        )
        self.rollbacks = self._counter(
            "monocoque_engine_rollbacks",
            "Times that an engine served again since the one that was swapped into its place failed.",
            ("engine",),
        )
        self.restarts = self._counter(
            "monocoque_engine_restarts",
            "Times that an engine was opened again since its process had died, each try counted.",
            ("engine",),
        )
        self.instances = self._gauge(
            "monocoque_engine_instances", "Instances of an engine that compute, of --instances.", ENGINE_LABELS
        )
        self.build_info = self._gauge(
            "monocoque_build_info",
            "What is running; always 1.",
            (
                "version",
                *ENGINE_LABELS,
                "engine_digest",
                "target",
                "backend",
                "backend_version",
                "precision",
            ),
        )
        self.triton = {
            name: self._gauge(name, text, ("model", "version"), only_grows=True)
            for name, text in TRITON_METRICS.items()
        }
        self._process = ProcessCollector(registry=self.registry)

    def camera(self, camera_id: str) -> CameraMetrics:
        """The series of a camera, or of `other` once the limit is reached."""
        return self._labelled(self.label(camera_id))

    def other_camera(self) -> CameraMetrics:
        """The series of cameras that have none of their own."""
        return self._labelled(OTHER_CAMERA)

    def label(self, camera_id: str) -> str:
        """The value of the label `camera` for a camera."""
        named = len(self._cameras) - (OTHER_CAMERA in self._cameras)
        return camera_id if camera_id in self._cameras or named < self.max_cameras else OTHER_CAMERA

    def forget_engine(self, name: str, version: str) -> None:
        """Forget the series of an engine that is not served any more.

        Args:
            name: Its bundle's name.
            version: Its bundle's version.
        """
        for family in self.families:
            if set(ENGINE_LABELS) <= set(family.label_names):
                own = [family.label_names.index(label) for label in ENGINE_LABELS]
                for values in [values for values in family.series if [values[at] for at in own] == [name, version]]:
                    family.remove(*values)

    def refresh_ages(self) -> None:
        """Bring the gauges of ages up to date."""
        for label, camera in self._cameras.items():
            self.age_jitter(label).set(camera.track.jitter_ns / 1e9)
            self.age_uncertainty(label).set(camera.track.uncertainty_ns / 1e9)

    def collect_process(self) -> Iterable[Metric]:
        """The process's own metrics, which are no families of ours."""
        return self._process.collect()

    def _labelled(self, label: str) -> CameraMetrics:
        if label not in self._cameras:
            self._cameras[label] = self._resolve(label)
        return self._cameras[label]

    def _resolve(self, label: str) -> CameraMetrics:
        return CameraMetrics(
            stages={stage: self.stage_latency(stage, label) for stage in STAGES},
            frames={status: self.frames(label, status) for status in STATUSES},
            age=self.frame_age(label),
            client_dropped=self.client_dropped(label),
            deadline_misses=self.deadline_misses(label),
            track=AgeTrack(),
        )

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Family[Histogram]:
        return self._family(Histogram(name, text, labels, buckets=buckets, registry=self.registry), labels)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Family[Counter]:
        return self._family(Counter(name, text, labels, registry=self.registry), labels)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...], only_grows: bool = False) -> Family[Gauge]:
        return self._family(Gauge(name, text, labels, registry=self.registry), labels, only_grows)

    def _family(self, metric: Kind, labels: tuple[str, ...], only_grows: bool = False) -> Family[Kind]:
        family = Family(metric, labels, only_grows)
        self.families.append(family)
        return family
