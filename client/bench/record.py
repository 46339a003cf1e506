"""What became of every frame that was offered, and the percentiles that follow."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from client.results import Result

PERCENTILES = (50.0, 90.0, 99.0, 99.9)
"""The usual ones, and the 99.9th by which MLPerf Automotive judges."""


@dataclass
class Record:
    """One run. Times in nanoseconds of the client's monotonic clock; index: order in which frames were due.

    Attributes:
        name: What was offered, for a table.
        scenario: `single-stream`, `constant-stream` or `overload`.
        cameras: How many.
        offered_per_second: Frames per second of all cameras; 0 in `single-stream`, where the server sets the pace.
        frame_bytes: Bytes of a frame, on average.
        due_ns: When each frame was to be sent.
        camera_of: Index of its camera.
        handed_ns: When it was given to the client; the difference to `due_ns` is the generator's own lag.
        returned_ns: When its answer was back; None: there was none.
        ages_ns: Capture to the result's return, by the client's clock, of each frame that was computed.
        statuses: What the answer was; None: there was none.
        client_dropped: Frames that newer ones replaced in the client, which had no credit for them.
        computed_per_second: What the engine can do, where that was measured (`overload`).
        seconds: From the first frame due to the end of the run.
        interrupted: Whether the run was ended early; its figures are of what had been offered by then.
    """

    name: str
    scenario: str
    cameras: int
    offered_per_second: float
    frame_bytes: float
    due_ns: list[int] = field(default_factory=list)
    camera_of: list[int] = field(default_factory=list)
    handed_ns: list[int] = field(default_factory=list)
    returned_ns: list[int | None] = field(default_factory=list)
    ages_ns: list[int] = field(default_factory=list)
    statuses: list[str | None] = field(default_factory=list)
    client_dropped: int = 0
    computed_per_second: float | None = None
    seconds: float = 0.0
    interrupted: bool = False

    def offer(self, due_ns: int, camera: int, handed_ns: int) -> int:
        """Note a frame; returns its index."""
        self.due_ns.append(due_ns)
        self.camera_of.append(camera)
        self.handed_ns.append(handed_ns)
        self.returned_ns.append(None)
        self.statuses.append(None)
        return len(self.due_ns) - 1

    def answer(self, index: int, result: Result, now_ns: int) -> None:
        """Note an answer."""
        self.returned_ns[index] = now_ns
        self.statuses[index] = result.status if result.ok or result.status != "ok" else "invalid"
        if result.ok and result.age.returned_ns is not None:
            self.ages_ns.append(result.age.returned_ns)

    @property
    def counts(self) -> dict[str, int]:
        """Frames by what became of them; they add up to the frames offered."""
        counts = Counter(status for status in self.statuses if status is not None)
        unanswered = self.statuses.count(None) - self.client_dropped
        return {**counts, "client_dropped": self.client_dropped, "unanswered": unanswered}

    @property
    def ok_per_second(self) -> float:
        """Frames computed per second."""
        return self.counts.get("ok", 0) / self.seconds if self.seconds > 0 else 0.0

    def computed_ms(self) -> list[float]:
        """Latency of the frames that were computed, from when they were due."""
        return [value for value in self.offered_ms() if math.isfinite(value)]

    def offered_ms(self) -> list[float]:
        """Latency of every frame that was offered; infinite for one that was not computed, whatever the reason."""
        rows = zip(self.due_ns, self.returned_ns, self.statuses, strict=True)
        return [
            (returned - due) / 1e6 if status == "ok" and returned is not None else math.inf
            for due, returned, status in rows
        ]

    def age_ms(self) -> list[float]:
        """Age of the frames that were computed, from capture to the result's return."""
        return [age / 1e6 for age in self.ages_ns]

    def peak_age_ms(self) -> list[float]:
        """How old a camera's newest result had grown each time that a newer one replaced it."""
        newest: dict[int, int] = {}
        peaks = []
        rows = zip(self.returned_ns, self.due_ns, self.camera_of, self.statuses, strict=True)
        answered = [(returned, due, camera) for returned, due, camera, status in rows if status == "ok" and returned]
        for returned, due, camera in sorted(answered):
            if camera in newest:
                peaks.append((returned - newest[camera]) / 1e6)
            newest[camera] = max(due, newest.get(camera, due))
        return peaks

    def lag_ms(self) -> list[float]:
        """How late the generator itself was."""
        return [(handed - due) / 1e6 for handed, due in zip(self.handed_ns, self.due_ns, strict=True)]

    def summary(self) -> dict[str, Any]:
        """Everything, ready for JSON. An infinite time is the string `Infinity`, which JSON has no number for."""
        return {
            "name": self.name,
            "scenario": self.scenario,
            "cameras": self.cameras,
            "frame_bytes": round(self.frame_bytes),
            "seconds": round(self.seconds, 3),
            "interrupted": self.interrupted,
            "offered": len(self.due_ns),
            "offered_per_second": round(self.offered_per_second, 2),
            "ok_per_second": round(self.ok_per_second, 2),
            "computed_per_second": self.computed_per_second,
            "counts": self.counts,
            "latency_ms": spread(self.computed_ms()),
            "latency_of_all_offered_ms": spread(self.offered_ms()),
            "age_ms": spread(self.age_ms()),
            "peak_age_ms": spread(self.peak_age_ms()),
            "generator_lag_ms": spread(self.lag_ms()),
        }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` per cent of all do not exceed (nearest rank, so that infinity is a value).

    nan without any value.
    """
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def spread(values: Sequence[float]) -> dict[str, float | str | None]:
    """Percentiles and the largest, for JSON; None without any value."""
    named = {f"p{percent:g}": percentile(values, percent) for percent in PERCENTILES}
    named["max"] = max(values, default=math.nan)
    return {name: _json(value) for name, value in named.items()}


def _json(value: float) -> float | str | None:
    if math.isnan(value):
        return None
    return round(value, 4) if math.isfinite(value) else "Infinity"
