"""Frames of several cameras that were taken at one moment: a state machine that gathers them, without a clock.

A set is not waited for any longer when

1. every camera that is awaited has a frame in it (`complete`), or
2. the earliest deadline of its frames leaves just the time to compute it (`deadline`), or
3. a frame comes that was taken too late to belong to it, so the next set has begun (`next`), or
4. no more frames will be sent (`ended`).

A camera that misses a set is not awaited again before a frame of it is in time, or late by less than half a period,
so a dead one delays the others once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

Cause = Literal["complete", "deadline", "next", "ended"]


class Gatherable(Protocol):
    """What sets need to know of a frame."""

    frame_set: FrameSet | None
    """Filled in when its set is there."""

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time after which an answer is of no use; None means never."""

    @property
    def taken_ns(self) -> int:
        """When it was captured, in a clock that the cameras of the set share."""


Camera = TypeVar("Camera", bound=Hashable)
Item = TypeVar("Item", bound=Gatherable)


@dataclass(eq=False)
class FrameSet:
    """A set that is not waited for any longer, as the answers of its frames describe it.

    Attributes:
        frames: How many there are.
        missing: Cameras without one.
        first_ns: Its first capture.
        spread_ns: From its first to its last capture.
        cause: Why it was not waited for any longer.
        gathered_ns: How long its first frame waited for the others.
    """

    frames: int
    missing: tuple[Hashable, ...]
    first_ns: int
    spread_ns: int
    cause: Cause
    gathered_ns: int


@dataclass
class Gathered(Generic[Item]):
    """What a frame led to.

    Attributes:
        sets: Sets that are ready now, each with its frames in the order of the cameras.
        replaced: Frames that are in no set: a newer one of their camera came, or their set has gone without them.
    """

    sets: list[list[Item]] = field(default_factory=list)
    replaced: list[Item] = field(default_factory=list)


class Gatherer(Generic[Camera, Item]):
    """The set that forms.

    Args:
        cameras: The cameras of a full set.
        tolerance_ns: Frames further apart are of different sets.
        keeps_all: Whether every frame must be computed: one that is too late for its set is then a set of its own.
    """

    def __init__(self, cameras: Sequence[Camera], tolerance_ns: int, keeps_all: bool) -> None:
        self.cameras = list(cameras)
        self.lead_ns = 0
        """How long before its earliest deadline a set must be ready."""
        self._tolerance_ns = tolerance_ns
        self._keeps_all = keeps_all
        self._awaited = set(cameras)
        self._forming: dict[Camera, Item] = {}
        self._since_ns = 0
        self._last_first_ns: int | None = None
        self._last_ready_ns = 0
        self._period_ns = 0
        self._ended = False
        self._last_cameras: frozenset[Camera] = frozenset()

    def offer(self, camera: Camera, item: Item, now_ns: int) -> Gathered[Item]:
        """Add a frame.

        Args:
            camera: Its camera.
            item: The frame.
            now_ns: The monotonic clock.
        """
        result: Gathered[Item] = Gathered()
        if self._came_too_late(camera, item):
            if now_ns - self._last_ready_ns <= max(self._tolerance_ns, self._period_ns // 2):
                self._awaited.add(camera)
            if self._keeps_all:
                result.sets.append(self._describe({camera: item}, "next", 0))
            else:
                result.replaced.append(item)
            return result
        if self._forming and (not self._fits(item) or (self._keeps_all and camera in self._forming)):
            result.sets.append(self._close("next", now_ns))
        if not self._forming:
            self._since_ns = now_ns
        if camera in self._forming:
            result.replaced.append(self._forming[camera])
        self._forming[camera] = item
        self._awaited.add(camera)
        if self._awaited <= self._forming.keys():
            result.sets.append(self._close("complete", now_ns))
        elif self._ended:  # what was still under way when the last was sent
            result.sets.append(self._close("ended", now_ns))
        return result

    def end(self, now_ns: int) -> list[Item] | None:
        """Wait for no camera from here on; returns the set that forms, if there is one."""
        self._ended = True
        return self._close("ended", now_ns) if self._forming else None

    def due_ns(self) -> int | None:
        """When the forming set must be ready for the earliest deadline of its frames; None means whenever it is."""
        deadlines = [item.deadline_ns for item in self._forming.values() if item.deadline_ns is not None]
        return min(deadlines) - self.lead_ns if deadlines else None

    def close_due(self, now_ns: int) -> list[Item] | None:
        """The forming set, where its time has come."""
        due = self.due_ns()
        return None if due is None or now_ns < due else self._close("deadline", now_ns)

    def remove(self, camera: Camera) -> list[Item]:
        """Forget a camera; returns its frame, if it has one here."""
        self.cameras.remove(camera)
        self._awaited.discard(camera)
        return [self._forming.pop(camera)] if camera in self._forming else []

    @property
    def forming(self) -> int:
        """Frames of the set that forms."""
        return len(self._forming)

    def _fits(self, item: Item) -> bool:
        times = [other.taken_ns for other in self._forming.values()]
        return max(*times, item.taken_ns) - min(*times, item.taken_ns) <= self._tolerance_ns

    def _came_too_late(self, camera: Camera, item: Item) -> bool:
        """Whether it belongs to a set that is gone, or lies between that and the one that forms.

        Never for a camera that has a frame there already: its next frame is newer, whatever its clock says.
        """
        if camera in self._forming:
            return False
        last = self._last_first_ns
        if last is not None and camera not in self._last_cameras and item.taken_ns <= last + self._tolerance_ns:
            return True
        oldest = min((other.taken_ns for other in self._forming.values()), default=None)
        return oldest is not None and item.taken_ns < oldest and not self._fits(item)

    def _close(self, cause: Cause, now_ns: int) -> list[Item]:
        self._awaited &= self._forming.keys()
        items = self._describe(self._forming, cause, now_ns - self._since_ns)
        first_ns = min(item.taken_ns for item in items)
        self._period_ns = 0 if self._last_first_ns is None else first_ns - self._last_first_ns
        self._last_first_ns = first_ns
        self._last_ready_ns = now_ns
        self._last_cameras = frozenset(self._forming)
        self._forming = {}
        return items

    def _describe(self, frames: dict[Camera, Item], cause: Cause, gathered_ns: int) -> list[Item]:
        items = [frames[camera] for camera in self.cameras if camera in frames]
        times = [item.taken_ns for item in items]
        missing = tuple(camera for camera in self.cameras if camera not in frames)
        frame_set = FrameSet(len(items), missing, min(times), max(times) - min(times), cause, gathered_ns)
        for item in items:
            item.frame_set = frame_set
        return items
