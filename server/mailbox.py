"""The scheduler between threads: the event loop puts frames in, the engines' threads take batches out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from server.batching import LatencyCurve
from server.frames import CameraKey, Frame
from server.scheduler import Scheduler, Selection
from server.tensor_request import TensorRequest

QUEUED_REQUESTS = 256
"""Of one priority; more are refused, since they would wait for seconds."""
HIGHEST_PRIORITY = 8
"""Of requests, and `-HIGHEST_PRIORITY` the lowest: each one used is a queue of its own."""


@dataclass(frozen=True)
class QueueKey:
    """Names the queue of requests of one priority."""

    priority: int


SourceKey = CameraKey | QueueKey
Item = Frame | TensorRequest


class Mailbox:
    """A scheduler behind a lock. Nothing is done under the lock but the scheduler's own few microseconds.

    Args:
        scheduler: The state machine.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, scheduler: Scheduler[SourceKey, Item], clock: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        self._retired: set[int] = set()

    def add_camera(self, key: CameraKey, *, replaces: bool, depth: int, priority: int, weight: int = 1) -> None:
        """See `Scheduler.add_camera`."""
        with self._changed:
            self._scheduler.add_camera(key, replaces=replaces, depth=depth, priority=priority, weight=weight)

    def remove_camera(self, key: CameraKey) -> list[Frame]:
        """See `Scheduler.remove_camera`."""
        with self._changed:
            return [item for item in self._scheduler.remove_camera(key) if isinstance(item, Frame)]

    def has_room(self, key: CameraKey) -> bool:
        """See `Scheduler.has_room`."""
        with self._changed:
            return self._scheduler.has_room(key)

    def offer(self, frame: Frame) -> Frame | None:
        """See `Scheduler.offer`; wakes an engine's thread."""
        with self._changed:
            replaced = self._scheduler.offer(frame.camera.key, frame)
            self._changed.notify_all()
            return replaced if isinstance(replaced, Frame) else None

    def submit(self, request: TensorRequest, priority: int) -> bool:
        """Let a request wait; returns False where too many of its priority do already.

        Args:
            request: The request.
            priority: Higher is served first, on the scale of streams.
        """
        key = QueueKey(max(-HIGHEST_PRIORITY, min(HIGHEST_PRIORITY, priority)))
        with self._changed:
            if key not in self._scheduler:
                self._scheduler.add_camera(
                    key, replaces=False, depth=QUEUED_REQUESTS, priority=key.priority, alone=True
                )
            if self._closed or not self._scheduler.has_room(key):
                return False
            self._scheduler.offer(key, request)
            self._changed.notify_all()
            return True

    def take(
        self, max_batch: int, curve: LatencyCurve | None = None, worker: int = 0
    ) -> Selection[SourceKey, Item] | None:
        """Wait until a frame waits, then begin a turn (`Scheduler.take`).

        Returns:
            None once the mailbox was closed or the worker retired.
        """
        with self._changed:
            while not self._ended(worker) and not self._scheduler.has_turn(worker):
                self._changed.wait()
            return None if self._ended(worker) else self._scheduler.take(self._clock(), max_batch, curve, worker)

    def finish(self, keys: Iterable[SourceKey]) -> None:
        """See `Scheduler.finish`; other workers may serve these sources now."""
        with self._changed:
            self._scheduler.finish(keys)
            self._changed.notify_all()

    def depths(self) -> dict[SourceKey, int]:
        """Frames waiting, per source."""
        with self._changed:
            return self._scheduler.depths()

    def retire(self, worker: int) -> None:
        """End `take` for one worker; the others go on."""
        with self._changed:
            self._retired.add(worker)
            self._changed.notify_all()

    def close(self) -> None:
        """End `take`, now and for good. Frames that wait are not computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def drain(self) -> list[Item]:
        """Take out everything that waits."""
        with self._changed:
            return [item for key in self._scheduler.depths() for item in self._scheduler.remove_camera(key)]

    def _ended(self, worker: int) -> bool:
        return self._closed or worker in self._retired
