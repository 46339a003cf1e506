"""The scheduler between threads: the event loop puts frames in, the engines' threads take batches out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

from server.engines.tensor_request import TensorRequest
from server.frames import CameraKey, Frame
from server.schedule.batching import LatencyCurve
from server.schedule.scheduler import Scheduler, Selection

QUEUED_REQUESTS = 256
"""Of one priority; more are refused, since they would wait for seconds."""
FIRST_LEAD = 2
"""Until a set was computed, it is taken to need this many times what its frames take on the engine."""
HIGHEST_PRIORITY = 8
"""Of requests, and `-HIGHEST_PRIORITY` the lowest: each one used is a queue of its own."""


class QueueKey(NamedTuple):
    """Names the queue of requests of one priority."""

    priority: int


class SetKey(NamedTuple):
    """Names the set of a stream's cameras."""

    stream_id: str


SourceKey = CameraKey | QueueKey | SetKey
Item = Frame | TensorRequest


Turn = Selection[SourceKey, Item]
Work = TypeVar("Work")


class Worker(Generic[Work]):
    """What the threads of one engine tell each other; all of it under the mailbox's lock.

    Args:
        number: Names it among the workers that share the mailbox.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.retired = False
        self.paused = False
        """Whether it finishes what it has and takes nothing more for now."""
        self.busy_until_ns: int | None = None
        """When the engine is expected to be free; None while it is."""
        self.preparing = False
        """Whether the preparing thread has taken a turn that is not ready yet."""
        self.ready: Work | None = None
        """The turn that is ready to be launched."""


class Mailbox:
    """A scheduler behind a lock. Nothing is done under the lock but the scheduler's own few microseconds.

    Each engine has a thread that computes, and may have one that prepares. The engine's thread takes turns itself while
    it is idle, so a lone frame is handed over to nobody. While it computes, the other may take the next turn.

    Args:
        scheduler: The state machine.
        clock: Monotonic clock in nanoseconds.
    """

    def __init__(self, scheduler: Scheduler[SourceKey, Item], clock: Callable[[], int]) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._lock = threading.Lock()
        self._for_engines = threading.Condition(self._lock)
        self._for_preparers = threading.Condition(self._lock)
        self._closed = False
        self.frame_ns = 0
        """What a frame takes on the engine, as measured when it was opened."""
        self.held = False
        """Whether an engine that died is being opened again: a replay waits for it, nothing of it is lost."""

    def add_camera(self, key: CameraKey, *, replaces: bool, depth: int, priority: int, weight: int = 1) -> None:
        """See `Scheduler.add_camera`."""
        with self._lock:
            self._scheduler.add_camera(key, replaces=replaces, depth=depth, priority=priority, weight=weight)

    def add_set(
        self, key: SetKey, cameras: Sequence[CameraKey], *, tolerance_ns: int, replaces: bool, depth: int, priority: int
    ) -> None:
        """See `Scheduler.add_set`."""
        with self._lock:
            self._scheduler.add_set(
                key,
                cameras,
                tolerance_ns=tolerance_ns,
                lead_ns=FIRST_LEAD * self.frame_ns * len(cameras),
                replaces=replaces,
                depth=depth,
                priority=priority,
            )

    def remove_camera(self, key: CameraKey) -> list[Frame]:
        """See `Scheduler.remove_camera`."""
        with self._lock:
            return [item for item in self._scheduler.remove_camera(key) if isinstance(item, Frame)]

    def has_room(self, key: CameraKey) -> bool:
        """See `Scheduler.has_room`."""
        with self._lock:
            return self._scheduler.has_room(key)

    def offer(self, frame: Frame) -> list[Frame]:
        """See `Scheduler.offer`; wakes an engine's thread."""
        with self._lock:
            replaced = self._scheduler.offer(frame.camera.key, frame, self._clock())
            self._for_engines.notify_all()
            return [item for item in replaced if isinstance(item, Frame)]

    def end_set(self, key: SetKey) -> list[Frame]:
        """See `Scheduler.end_set`."""
        with self._lock:
            replaced = self._scheduler.end_set(key, self._clock())
            self._for_engines.notify_all()
            return [item for item in replaced if isinstance(item, Frame)]

    def submit(self, request: TensorRequest, priority: int) -> bool:
        """Let a request wait; returns False where too many of its priority do already.

        Args:
            request: The request.
            priority: Higher is served first, on the scale of streams.
        """
        key = QueueKey(max(-HIGHEST_PRIORITY, min(HIGHEST_PRIORITY, priority)))
        with self._lock:
            if key not in self._scheduler:
                self._scheduler.add_camera(
                    key, replaces=False, depth=QUEUED_REQUESTS, priority=key.priority, alone=True
                )
            if self._closed or not self._scheduler.has_room(key):
                return False
            self._scheduler.offer(key, request, self._clock())
            self._for_engines.notify_all()
            return True

    def take(
        self, max_batch: int, curve: LatencyCurve | None = None, worker: Worker[Work] | None = None
    ) -> Turn | Work | None:
        """Wait for a turn: the one that was prepared, or else a new one (`Scheduler.take`).

        Args:
            max_batch: See `Scheduler.take`.
            curve: See `Scheduler.take`.
            worker: Whose turn it is; None for the only one there is.

        Returns:
            None once the mailbox was closed or the worker retired, and nothing is left that was prepared.
        """
        one: Worker[Work] = worker or Worker(0)
        with self._lock:
            one.busy_until_ns = None
            while True:
                if one.ready is not None:
                    ready, one.ready = one.ready, None
                    return ready
                timeout_s = None
                if not one.preparing:
                    if self._closed or one.retired:
                        return None
                    if not one.paused:
                        now = self._clock()
                        if self._scheduler.has_turn(one.number, now):
                            return self._scheduler.take(now, max_batch, curve, one.number)
                        due = self._scheduler.due_ns()
                        timeout_s = None if due is None else (due - now) / 1e9
                self._for_engines.wait(timeout_s)

    def take_ahead(
        self, max_batch: int, curve: LatencyCurve | None, worker: Worker[Work], lead_ns: Callable[[], int]
    ) -> Turn | None:
        """Wait until a worker's engine is about to be free, then begin its next turn. `prepared` must follow.

        The later a frame is chosen, the fresher it is.

        Args:
            max_batch: See `Scheduler.take`.
            curve: See `Scheduler.take`.
            worker: Whose turn it is.
            lead_ns: How long before that to begin.

        Returns:
            None once the mailbox was closed or the worker retired.
        """
        with self._lock:
            while not self._closed and not worker.retired:
                now = self._clock()
                until_ns = None if worker.ready is not None else worker.busy_until_ns
                if worker.paused or until_ns is None or not self._scheduler.has_turn(worker.number, now):
                    self._for_preparers.wait()
                    continue
                early_ns = until_ns - lead_ns() - now
                if early_ns > 0:
                    self._for_preparers.wait(early_ns / 1e9)
                    continue
                worker.preparing = True
                return self._scheduler.take(now, max_batch, curve, worker.number)
            return None

    def prepared(self, worker: Worker[Work], work: Work) -> None:
        """The turn of `take_ahead` is ready to be launched."""
        with self._lock:
            worker.preparing, worker.ready = False, work
            self._for_engines.notify_all()

    def launching(self, worker: Worker[Work], until_ns: int) -> None:
        """A worker's engine is about to compute; the next turn may be prepared meanwhile.

        Args:
            worker: Whose.
            until_ns: When it is expected to be free.
        """
        with self._lock:
            worker.busy_until_ns = until_ns
            # Only where there is something to prepare: waking a thread for nothing costs the engine its core.
            if self._scheduler.has_turn(worker.number, self._clock()):
                self._for_preparers.notify_all()

    def finish(self, keys: Iterable[SourceKey]) -> None:
        """See `Scheduler.finish`; other workers may serve these sources now."""
        with self._lock:
            self._scheduler.finish(keys, self._clock())
            self._for_engines.notify_all()

    def depths(self) -> dict[SourceKey, int]:
        """Frames waiting, per source."""
        with self._lock:
            return self._scheduler.depths()

    @property
    def is_used(self) -> bool:
        """Whether there is somebody that may send something."""
        with self._lock:
            return self._scheduler.is_used

    def pause(self, worker: Worker[Work], *, paused: bool) -> None:
        """Let one worker take no more turns for now, or take them again."""
        with self._lock:
            worker.paused = paused
            self._wake_all()

    def retire(self, worker: Worker[Work]) -> None:
        """Let one worker take no more turns; the others go on."""
        with self._lock:
            worker.retired = True
            self._wake_all()

    def close(self) -> None:
        """End `take`, now and for good. Frames that wait are not computed."""
        with self._lock:
            self._closed = True
            self._wake_all()

    def drain(self) -> list[Item]:
        """Take out everything that waits."""
        with self._lock:
            return self._scheduler.remove_all()

    def _wake_all(self) -> None:
        self._for_engines.notify_all()
        self._for_preparers.notify_all()
