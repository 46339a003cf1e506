"""The scheduler between two threads: the event loop puts frames in, the engine's thread takes batches out."""

from __future__ import annotations

import threading
from collections.abc import Callable

from server.frames import CameraKey, Frame
from server.scheduler import Scheduler, Selection


class Mailbox:
    """A scheduler behind a lock. Nothing is done under the lock but the scheduler's own few microseconds.

    Args:
        scheduler: The state machine.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, scheduler: Scheduler[CameraKey, Frame], clock: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False

    def add_camera(self, key: CameraKey, *, replaces: bool, depth: int, priority: int) -> None:
        """See `Scheduler.add_camera`."""
        with self._changed:
            self._scheduler.add_camera(key, replaces=replaces, depth=depth, priority=priority)

    def remove_camera(self, key: CameraKey) -> list[Frame]:
        """See `Scheduler.remove_camera`."""
        with self._changed:
            return self._scheduler.remove_camera(key)

    def has_room(self, key: CameraKey) -> bool:
        """See `Scheduler.has_room`."""
        with self._changed:
            return self._scheduler.has_room(key)

    def offer(self, frame: Frame) -> Frame | None:
        """See `Scheduler.offer`; wakes the engine's thread."""
        with self._changed:
            replaced = self._scheduler.offer(frame.camera.key, frame)
            self._changed.notify()
            return replaced

    def take(self, max_batch: int) -> Selection[Frame] | None:
        """Wait until a frame waits, then begin a turn (`Scheduler.take`); None once the mailbox was closed."""
        with self._changed:
            while not self._closed and self._scheduler.is_empty:
                self._changed.wait()
            return None if self._closed else self._scheduler.take(self._clock(), max_batch)

    def depths(self) -> dict[CameraKey, int]:
        """Frames waiting, per camera."""
        with self._changed:
            return self._scheduler.depths()

    def close(self) -> None:
        """End `take`, now and for good. Frames that wait are not computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
