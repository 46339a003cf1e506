"""When each frame of an open-loop run is due: decided before the run, whatever the server does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Shot:
    """One frame to offer.

    Attributes:
        due_ns: When, since the start of the run.
        camera: Index of its camera.
    """

    due_ns: int
    camera: int


def constant_stream(cameras: int, rate: float, seconds: float, together: bool = False) -> Iterator[Shot]:
    """Every camera at its own fixed rate: the constant-stream scenario of MLPerf Automotive, per camera.

    Args:
        cameras: How many.
        rate: Frames per second of each.
        seconds: Length of the run; each camera offers `rate * seconds` frames, rounded.
        together: All shutters open at once, as in a synchronized rig; else they are spread evenly over the period.

    Yields:
        Shots in the order they are due.
    """
    period_ns = 1e9 / rate
    for number in range(round(rate * seconds)):
        for camera in range(cameras):
            phase = 0.0 if together else camera / cameras
            yield Shot(round((number + phase) * period_ns), camera)


def length(cameras: int, rate: float, seconds: float) -> int:
    """Number of shots of `constant_stream`."""
    return cameras * round(rate * seconds)
