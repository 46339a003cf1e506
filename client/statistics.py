"""What a run of a stream amounts to: rates, percentiles and counts, per camera and together."""

from __future__ import annotations

import itertools
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.outbox import Counts
from client.results import STAGES, Result

WINDOW_NS = 2_000_000_000
"""The live figures look back this far."""

KEPT = 200_000
"""Results per camera whose times are kept for the summary; of a longer run, the newest."""


@dataclass(frozen=True)
class Row:
    """Figures of one camera, or of all. Times in milliseconds; nan: no result yet."""

    name: str
    fps: float
    latency_p50_ms: float
    latency_p99_ms: float
    age_p50_ms: float
    age_p99_ms: float
    statuses: Mapping[str, int]
    client_dropped: int
    objects: int


@dataclass
class _Times:
    """Of the results that were computed, in the order they came; ns."""

    returned_at_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    end_to_end_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    age_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT))
    stages: deque[Mapping[str, int]] = field(default_factory=lambda: deque(maxlen=KEPT))
    statuses: Counter[str] = field(default_factory=Counter)
    objects: int = 0
    reason: str = ""


class Statistics:
    """Takes results in, gives figures.

    Args:
        camera_ids: The cameras of the stream, in the order to show them.
        counts: The stream's own counts by camera; they are read when figures are asked for.
        started_at_ns: When the run began, in the stream's clock.
    """

    def __init__(self, camera_ids: Iterable[str], counts: Mapping[str, Counts], started_at_ns: int) -> None:
        self._times = {camera_id: _Times() for camera_id in camera_ids}
        self._counts = counts
        self._started_at_ns = started_at_ns

    def start(self, now_ns: int) -> None:
        """Measure rates from now: when the first frame is there."""
        self._started_at_ns = now_ns

    def add(self, result: Result, now_ns: int) -> None:
        """Take one result in."""
        times = self._times[result.camera_id]
        times.statuses[result.status if result.valid or result.status != "ok" else "invalid"] += 1
        if not result.ok and result.status != "stale":
            times.reason = f"{result.status}: {result.reason}"
        if result.status != "ok" or result.ledger.end_to_end_ns is None or result.age.returned_ns is None:
            return
        times.returned_at_ns.append(now_ns)
        times.end_to_end_ns.append(result.ledger.end_to_end_ns)
        times.age_ns.append(result.age.returned_ns)
        times.stages.append(result.ledger.stages())
        times.objects = len(result.detections)

    def rows(self, now_ns: int, window_ns: int | None = WINDOW_NS) -> list[Row]:
        """One row per camera, and one for all together where there are several.

        Args:
            now_ns: The time, in the stream's clock.
            window_ns: How far to look back; None: the whole run.
        """
        since_ns = self._started_at_ns if window_ns is None else max(self._started_at_ns, now_ns - window_ns)
        seconds = max(now_ns - since_ns, 1) / 1e9
        recent = {camera_id: _recent(times.returned_at_ns, since_ns) for camera_id, times in self._times.items()}
        rows = [self._row(camera_id, [camera_id], recent, seconds) for camera_id in self._times]
        if len(rows) > 1:
            rows.append(self._row("all", list(self._times), recent, seconds))
        return rows

    def stage_times_ms(self, camera_id: str, newest: int = KEPT) -> dict[str, list[float]]:
        """Times of every stage of a camera's newest computed frames."""
        stages = list(itertools.islice(reversed(self._times[camera_id].stages), newest))
        return {stage: times for stage in STAGES if (times := [row[stage] / 1e6 for row in stages if stage in row])}

    def end_to_end_ms(self, camera_id: str) -> list[float]:
        """End-to-end times of a camera's computed frames."""
        return [value / 1e6 for value in self._times[camera_id].end_to_end_ns]

    def reasons(self) -> dict[str, str]:
        """Why a camera's newest frame without numbers has none; frames replaced by newer ones do not count."""
        return {camera_id: times.reason for camera_id, times in self._times.items() if times.reason}

    def ages_over_time(self, camera_id: str) -> tuple[list[float], list[float]]:
        """When a camera's computed frames came back, in seconds since the start, and how old they were, in ms."""
        times = self._times[camera_id]
        seconds = [(returned - self._started_at_ns) / 1e9 for returned in times.returned_at_ns]
        return seconds, [age / 1e6 for age in times.age_ns]

    def summary(self, now_ns: int) -> dict[str, Any]:
        """The whole run, ready for JSON."""
        return {
            "seconds": round((now_ns - self._started_at_ns) / 1e9, 3),
            "cameras": {row.name: self._describe(row) for row in self.rows(now_ns, None)},
            "reasons": self.reasons(),
            "stages_ms": {
                stage: {"p50": _percentile(times, 50), "p99": _percentile(times, 99)}
                for stage in STAGES
                if (times := [t for camera_id in self._times for t in self.stage_times_ms(camera_id).get(stage, [])])
            },
        }

    def _row(self, name: str, camera_ids: list[str], recent: Mapping[str, int], seconds: float) -> Row:
        latencies = [v for c in camera_ids for v in _last(self._times[c].end_to_end_ns, recent[c])]
        ages = [v for c in camera_ids for v in _last(self._times[c].age_ns, recent[c])]
        statuses: Counter[str] = sum((self._times[c].statuses for c in camera_ids), Counter())
        return Row(
            name=name,
            fps=round(len(latencies) / seconds, 2),
            latency_p50_ms=_percentile(latencies, 50, 1e6),
            latency_p99_ms=_percentile(latencies, 99, 1e6),
            age_p50_ms=_percentile(ages, 50, 1e6),
            age_p99_ms=_percentile(ages, 99, 1e6),
            statuses=dict(statuses),
            client_dropped=sum(self._counts[c].client_dropped for c in camera_ids),
            objects=sum(self._times[c].objects for c in camera_ids),
        )

    def _describe(self, row: Row) -> dict[str, Any]:
        counts = [self._counts[row.name]] if row.name in self._counts else list(self._counts.values())
        return {
            "fps": row.fps,
            "latency_ms": {"p50": _or_none(row.latency_p50_ms), "p99": _or_none(row.latency_p99_ms)},
            "age_ms": {"p50": _or_none(row.age_p50_ms), "p99": _or_none(row.age_p99_ms)},
            "submitted": sum(count.submitted for count in counts),
            "client_dropped": row.client_dropped,
            "sent": sum(count.sent for count in counts),
            "undelivered": sum(count.in_flight for count in counts),
            "statuses": dict(row.statuses),
        }


def _recent(returned_at_ns: deque[int], since_ns: int) -> int:
    """How many of the newest came after a moment."""
    count = 0
    for returned in reversed(returned_at_ns):
        if returned < since_ns:
            break
        count += 1
    return count


def _last(values: deque[int], count: int) -> list[int]:
    return list(itertools.islice(reversed(values), count))


def _percentile(values: list[int] | list[float], percent: float, divisor: float = 1.0) -> float:
    return round(float(np.percentile(values, percent)) / divisor, 3) if values else float("nan")


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
