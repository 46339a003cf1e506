"""Which frames go next: a state machine over values, without a clock, a thread or a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

STARVING_TURNS = 8
"""A camera that was passed over this often goes first, whatever its priority. With C cameras and batches of one, a
waiting camera is so served within `STARVING_TURNS + C` turns."""


class Schedulable(Protocol):
    """What the scheduler needs to know of a frame."""

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time after which an answer is of no use; None means never."""


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item", bound=Schedulable)


@dataclass(frozen=True)
class Selection(Generic[Item]):
    """What one turn of the engine begins with.

    Attributes:
        batch: Frames to compute, each of another camera, the most urgent camera first.
        late: Frames that left their slot because they were past their deadline.
    """

    batch: list[Item]
    late: list[Item]


@dataclass
class _Camera(Generic[Item]):
    depth: int
    replaces: bool
    priority: int
    waiting: deque[Item] = field(default_factory=deque)
    served_turn: int = -1
    passed_over: int = 0


class Scheduler(Generic[Key, Item]):
    """The frames that wait, and the order in which cameras are served.

    Cameras with a frame waiting are ranked by: starving, then priority, then the one served longest ago.
    The memory it holds is bounded by the depths of its cameras.
    """

    def __init__(self) -> None:
        self._cameras: dict[Key, _Camera[Item]] = {}
        self._turn = 0

    def add_camera(self, key: Key, *, replaces: bool, depth: int, priority: int) -> None:
        """Begin to serve a camera.

        Args:
            key: Names it from here on.
            replaces: Whether a newer frame replaces the one that waits (then `depth` is 1), or queues behind it.
            depth: Frames that may wait.
            priority: Higher is served first.
        """
        self._cameras[key] = _Camera(depth=1 if replaces else depth, replaces=replaces, priority=priority)

    def remove_camera(self, key: Key) -> list[Item]:
        """Stop serving a camera; returns the frames that waited."""
        camera = self._cameras.pop(key, None)
        return [] if camera is None else list(camera.waiting)

    def has_room(self, key: Key) -> bool:
        """Whether `offer` would take a frame: always, where newer frames replace older ones."""
        camera = self._cameras[key]
        return camera.replaces or len(camera.waiting) < camera.depth

    def offer(self, key: Key, item: Item) -> Item | None:
        """Let a frame wait; returns the one it replaced, which must be answered now.

        Raises:
            KeyError: The camera is not served.
            OverflowError: The camera's queue is full; ask `has_room` first.
        """
        camera = self._cameras[key]
        if not self.has_room(key):
            raise OverflowError(
                f"camera {key} has {len(camera.waiting)} frames waiting, its queue takes {camera.depth}"
            )
        replaced = camera.waiting.popleft() if camera.replaces and camera.waiting else None
        camera.waiting.append(item)
        return replaced

    def take(self, now_ns: int, max_batch: int) -> Selection[Item]:
        """Begin a turn: choose the next batch, and shed what is late.

        Args:
            now_ns: The monotonic clock.
            max_batch: Frames of the batch, at most.
        """
        self._turn += 1
        batch: list[Item] = []
        late: list[Item] = []
        for camera in sorted((camera for camera in self._cameras.values() if camera.waiting), key=_rank):
            while camera.waiting and is_late(camera.waiting[0], now_ns):
                late.append(camera.waiting.popleft())
            if not camera.waiting:
                continue
            if len(batch) < max_batch:
                batch.append(camera.waiting.popleft())
                camera.served_turn = self._turn
                camera.passed_over = 0
            else:
                camera.passed_over += 1
        return Selection(batch, late)

    def depths(self) -> dict[Key, int]:
        """Frames waiting, per camera."""
        return {key: len(camera.waiting) for key, camera in self._cameras.items()}

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits."""
        return not any(camera.waiting for camera in self._cameras.values())


def is_late(item: Schedulable, now_ns: int) -> bool:
    """Whether a frame is past its maximum age."""
    return item.deadline_ns is not None and now_ns > item.deadline_ns


def _rank(camera: _Camera[Item]) -> tuple[bool, int, int]:
    return (camera.passed_over < STARVING_TURNS, -camera.priority, camera.served_turn)
