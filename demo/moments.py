"""Keeps the one moment of a drive that is most worth a picture."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from client import Result
from client.frames import Image

SCORE = 0.35
"""Detections below it do not count."""

HELD = 4
"""Moments that are still being completed, at most."""


@dataclass
class Moment:
    """What all cameras saw at one capture time."""

    capture_time_ns: int
    images: dict[str, Image] = field(default_factory=dict)
    results: dict[str, Result] = field(default_factory=dict)

    def worth(self) -> tuple[int, float]:
        """How much there is to see: complete sets first, then many classes, then many objects that are not far."""
        objects = [d for result in self.results.values() for d in result.detections if d.score >= SCORE]
        near = sum(1.0 if (d.distance_m or 99.0) < 40 else 0.4 for d in objects)
        return len(self.results), 3.0 * len({d.label for d in objects}) + min(near, 18.0)


class Moments:
    """Takes results in, keeps the best moment and the few that are not complete yet.

    Args:
        camera_ids: All cameras.
    """

    def __init__(self, camera_ids: Iterable[str]) -> None:
        self._cameras = len(set(camera_ids))
        self._open: dict[int, Moment] = {}
        self._best: Moment | None = None

    def add(self, result: Result) -> None:
        """Take a result whose `frame.context` is its image; others are passed over."""
        if not result.ok or result.frame is None or result.frame.context is None:
            return
        moment = self._open.setdefault(result.capture_time_ns, Moment(result.capture_time_ns))
        moment.images[result.camera_id] = result.frame.context
        moment.results[result.camera_id] = result
        if len(moment.results) == self._cameras:
            self._settle(self._open.pop(result.capture_time_ns))
        while len(self._open) > HELD:
            self._settle(self._open.pop(min(self._open)))

    def best(self) -> Moment | None:
        """The best moment; None where no result had numbers."""
        while self._open:
            self._settle(self._open.popitem()[1])
        return self._best

    def _settle(self, moment: Moment) -> None:
        if self._best is None or moment.worth() > self._best.worth():
            self._best = moment
