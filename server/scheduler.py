"""Which frames go next: a state machine over values, without a clock, a thread or a network."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from server.batching import LatencyCurve

STARVING_TURNS = 8
"""A source that was passed over this often goes first, whatever its priority and weight. With S sources and batches of
one, a waiting source is so served within `STARVING_TURNS + S` turns."""
STRIDE = 1 << 20
"""Virtual time that serving a source of weight 1 takes (stride scheduling, Waldspurger and Weihl 1995)."""


class Schedulable(Protocol):
    """What the scheduler needs to know of a frame."""

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time after which an answer is of no use; None means never."""


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item", bound=Schedulable)


@dataclass(frozen=True)
class Selection(Generic[Key, Item]):
    """What one turn of an engine begins with.

    Attributes:
        batch: Frames to compute, each of another source, the most urgent source first.
        late: Frames that left their slot because they were past their deadline.
        keys: The sources of `batch`, to be given to `Scheduler.finish` when it is computed.
    """

    batch: list[Item]
    late: list[Item]
    keys: list[Key]


@dataclass
class _Source(Generic[Item]):
    depth: int
    replaces: bool
    priority: int
    stride: int
    alone: bool
    waiting: deque[Item] = field(default_factory=deque)
    virtual_time: int = 0
    served_turn: int = -1
    passed_over: int = 0
    worker: int | None = None
    in_flight: int = 0


class Scheduler(Generic[Key, Item]):
    """The frames that wait, and the order in which their sources are served.

    A source is a camera, or a queue of requests. Sources with a frame waiting are ranked by: starving, then priority,
    then virtual time, which passes faster for a source of a smaller weight, then the one served longest ago.
    The memory it holds is bounded by the depths of its sources.

    Several workers may take turns. A source whose frame one worker has is not served by another, so results of a
    source are computed in order.
    """

    def __init__(self) -> None:
        self._sources: dict[Key, _Source[Item]] = {}
        self._turn = 0
        self._virtual_time = 0

    def add_camera(
        self, key: Key, *, replaces: bool, depth: int, priority: int, weight: int = 1, alone: bool = False
    ) -> None:
        """Begin to serve a source.

        Args:
            key: Names it from here on.
            replaces: Whether a newer frame replaces the one that waits (then `depth` is 1), or queues behind it.
            depth: Frames that may wait.
            priority: Higher is served first.
            weight: Its share of the turns among sources of its priority that always have a frame waiting.
            alone: Whether its frames go into batches of their own.
        """
        self._sources[key] = _Source(
            depth=1 if replaces else depth,
            replaces=replaces,
            priority=priority,
            stride=STRIDE // weight,
            alone=alone,
            virtual_time=self._virtual_time,
        )

    def remove_camera(self, key: Key) -> list[Item]:
        """Stop serving a source; returns the frames that waited."""
        source = self._sources.pop(key, None)
        return [] if source is None else list(source.waiting)

    def __contains__(self, key: Key) -> bool:
        return key in self._sources

    def has_room(self, key: Key) -> bool:
        """Whether `offer` would take a frame: always, where newer frames replace older ones."""
        source = self._sources[key]
        return source.replaces or len(source.waiting) < source.depth

    def offer(self, key: Key, item: Item) -> Item | None:
        """Let a frame wait; returns the one it replaced, which must be answered now.

        Raises:
            KeyError: The source is not served.
            OverflowError: The source's queue is full; ask `has_room` first.
        """
        source = self._sources[key]
        if not self.has_room(key):
            raise OverflowError(
                f"camera {key} has {len(source.waiting)} frames waiting, its queue takes {source.depth}"
            )
        if not source.waiting:  # it cannot save up turns while it has nothing to compute
            source.virtual_time = max(source.virtual_time, self._virtual_time)
        replaced = source.waiting.popleft() if source.replaces and source.waiting else None
        source.waiting.append(item)
        return replaced

    def take(
        self, now_ns: int, max_batch: int, curve: LatencyCurve | None = None, worker: int = 0
    ) -> Selection[Key, Item]:
        """Begin a turn: choose the next batch, and shed what is late.

        Args:
            now_ns: The monotonic clock.
            max_batch: Frames of the batch, at most.
            curve: What batches cost on this engine; None means that every batch pays.
            worker: Who will compute it.
        """
        self._turn += 1
        late: list[Item] = []
        ready: list[tuple[Key, _Source[Item]]] = []
        for key, source in sorted(self._servable(worker), key=lambda entry: _rank(entry[1])):
            while source.waiting and is_late(source.waiting[0], now_ns):
                late.append(source.waiting.popleft())
            if source.waiting:
                ready.append((key, source))
        chosen = _together(ready, max_batch)
        if curve is not None:
            deadlines = [source.waiting[0].deadline_ns for _, source in chosen]
            chosen = chosen[: curve.best(deadlines, now_ns)]
        for _, source in ready:
            source.passed_over += 1
        batch = [self._serve(source, worker) for _, source in chosen]
        return Selection(batch, late, [key for key, _ in chosen])

    def finish(self, keys: Iterable[Key]) -> None:
        """End a turn: its batch is computed.

        Args:
            keys: Of the turn's `Selection`.
        """
        for key in keys:
            source = self._sources.get(key)  # it may be gone by now
            if source is not None:
                source.in_flight -= 1

    def depths(self) -> dict[Key, int]:
        """Frames waiting, per source."""
        return {key: len(source.waiting) for key, source in self._sources.items()}

    def has_turn(self, worker: int = 0) -> bool:
        """Whether `take` would find a frame."""
        return any(True for _ in self._servable(worker))

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits."""
        return not any(source.waiting for source in self._sources.values())

    def _servable(self, worker: int) -> Iterable[tuple[Key, _Source[Item]]]:
        """Sources with a frame that a worker may take."""
        for key, source in self._sources.items():
            if source.waiting and (source.in_flight == 0 or source.worker == worker):
                yield key, source

    def _serve(self, source: _Source[Item], worker: int) -> Item:
        self._virtual_time = max(self._virtual_time, source.virtual_time)
        source.virtual_time += source.stride
        source.served_turn = self._turn
        source.passed_over = 0
        source.worker = worker
        source.in_flight += 1
        return source.waiting.popleft()


def is_late(item: Schedulable, now_ns: int) -> bool:
    """Whether a frame is past its maximum age."""
    return item.deadline_ns is not None and now_ns > item.deadline_ns


def _together(ready: list[tuple[Key, _Source[Item]]], max_batch: int) -> list[tuple[Key, _Source[Item]]]:
    """The most urgent sources that may share a batch."""
    if ready and ready[0][1].alone:
        return ready[:1]
    return [entry for entry in ready if not entry[1].alone][:max_batch]


def _rank(source: _Source[Item]) -> tuple[int, int, int, int]:
    starved = source.passed_over if source.passed_over >= STARVING_TURNS else 0
    return (-starved, -source.priority, source.virtual_time, source.served_turn)
