"""Which frames go next: a state machine over values, without a clock, a thread or a network."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic

from server.schedule.batching import LatencyCurve
from server.schedule.ranking import Item, Key, Schedulable, Source, in_order
from server.schedule.sets import Gatherer


@dataclass
class Selection(Generic[Key, Item]):
    """What one turn of an engine begins with.

    Attributes:
        batch: Frames to compute, the most urgent source first: one per source, or several of one set.
        late: Frames that left their slot because they were past their deadline.
        stale: Frames of a set that waited, replaced by one that could not be gathered any longer.
        keys: The sources of `batch`, to be given to `Scheduler.finish` when it is computed.
    """

    batch: list[Item]
    late: list[Item]
    stale: list[Item]
    keys: list[Key]


class Scheduler(Generic[Key, Item]):
    """The frames that wait, and the order in which their sources are served.

    Sources with a frame waiting are ranked by: a set that was begun, starving, then priority, then what serving them is
    worth, then the one served longest ago. The worth is by how much a frame is newer than the one served before it,
    which is what serving it takes off the age of what is known of its camera (serving the oldest knowledge first is
    optimal where all frames come at one time: Sun, Uysal-Biyikoglu and Kompella, arXiv 1801.02394), less what it has
    aged in its slot: a camera whose frame is stale is left alone until its next one has come.
    Of live cameras of one weight that are worth about as much, to within the first one's news over the number of
    sources, the one served last goes first: its frame is the freshest of them, and cameras whose frames come at one
    time take turns in being the last.
    The memory it holds is bounded by the depths of its sources.

    Several workers may take turns. A source whose frame one worker has is not served by another, so results of a
    source are computed in order.
    """

    def __init__(self) -> None:
        self._sources: dict[Key, Source[Key, Item]] = {}
        self._source_of: dict[Key, Key] = {}
        """Of a camera, where its frames wait: itself, or its set."""
        self._turn = 0

    def add_camera(
        self, key: Key, *, replaces: bool, depth: int, priority: int, weight: int = 1, alone: bool = False
    ) -> None:
        """Begin to serve a source.

        Args:
            key: Names it from here on.
            replaces: Whether a newer frame replaces the one that waits (then `depth` is 1), or queues behind it.
            depth: Frames that may wait.
            priority: Higher is served first.
            weight: About its share of the turns among sources of its priority that always have a frame waiting.
            alone: Whether its frames go into batches of their own.
        """
        self._sources[key] = Source(1 if replaces else depth, replaces, priority, weight, alone)
        self._source_of[key] = key

    def add_set(
        self,
        key: Key,
        cameras: Sequence[Key],
        *,
        tolerance_ns: int,
        lead_ns: int = 0,
        replaces: bool,
        depth: int,
        priority: int,
        weight: int = 1,
    ) -> None:
        """Begin to serve cameras whose frames are computed as sets.

        Args:
            key: Names the set.
            cameras: Names its cameras, in `offer` and elsewhere.
            tolerance_ns: Frames further apart in their capture times are of different sets.
            lead_ns: How long before its earliest deadline a set must be ready, until one was computed.
            replaces: Whether a newer set replaces the one that waits, or queues behind it.
            depth: Sets that may wait, besides the one that forms.
            priority: Higher is served first.
            weight: Of each of its cameras, see `add_camera`.
        """
        gatherer: Gatherer[Key, Item] = Gatherer(cameras, tolerance_ns, keeps_all=not replaces)
        gatherer.lead_ns = lead_ns
        source = Source(1 if replaces else depth, replaces, priority, weight, alone=True, gatherer=gatherer)
        self._sources[key] = source
        for camera in cameras:
            self._source_of[camera] = key

    def remove_camera(self, key: Key) -> list[Item]:
        """Stop serving a source, or a camera of a set; returns the frames that waited."""
        source_key = self._source_of.pop(key, None)
        if source_key is None:
            return []
        source = self._sources[source_key]
        if source.gatherer is None:
            del self._sources[source_key]
            return [item for group in source.waiting for item in group]
        # What waits is one set or a few, of which the last camera to go takes all: a set is not torn apart.
        forming = source.gatherer.remove(key)
        if source.gatherer.cameras:
            return forming
        del self._sources[source_key]
        return forming + [item for group in source.waiting for item in group]

    def remove_all(self) -> list[Item]:
        """Stop serving everything; returns the frames that waited."""
        return [item for key in list(self._source_of) for item in self.remove_camera(key)]

    def __contains__(self, key: Key) -> bool:
        return key in self._source_of

    def has_room(self, key: Key) -> bool:
        """Whether `offer` would take a frame: always, where newer frames replace older ones."""
        source = self._sources[self._source_of[key]]
        return source.replaces or len(source.waiting) < source.depth

    def offer(self, key: Key, item: Item, now_ns: int) -> list[Item]:
        """Let a frame wait; returns those that it replaced, which must be answered now.

        Args:
            key: Its camera.
            item: The frame.
            now_ns: The monotonic clock.

        Raises:
            KeyError: The source is not served.
            OverflowError: The source's queue is full; ask `has_room` first.
        """
        source = self._sources[self._source_of[key]]
        if not self.has_room(key):
            raise OverflowError(
                f"camera {key} has {len(source.waiting)} frames waiting, its queue takes {source.depth}"
            )
        if source.gatherer is None:
            return self._wait(source, [item], now_ns)
        gathered = source.gatherer.offer(key, item, now_ns)
        replaced = gathered.replaced
        for group in gathered.sets:
            replaced += self._wait(source, group, now_ns)
        return replaced

    def end_set(self, key: Key, now_ns: int) -> list[Item]:
        """No more frames of a set's cameras will be sent; returns the frames that the last one replaced, as `offer`."""
        source = self._sources.get(key)
        group = None if source is None or source.gatherer is None else source.gatherer.end(now_ns)
        return [] if source is None or group is None else self._wait(source, group, now_ns)

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
        stale = self._close_due(now_ns)
        late: list[Item] = []
        ready: list[tuple[Key, Source[Key, Item]]] = []
        servable = [entry for entry in self._sources.items() if entry[1].is_for(worker)]
        if len(servable) > 1:
            servable = in_order(servable, now_ns, len(self._sources))
        for key, source in servable:
            late += _shed(source, now_ns)
            if source.waiting:
                ready.append((key, source))
        for _, source in ready:
            source.passed_over += 1
        size = 1
        if ready and ready[0][1].alone:
            chosen = ready[:1]
            size = self._size(ready[0][1].waiting[0][:max_batch], now_ns, curve)
        else:
            chosen = [entry for entry in ready if not entry[1].alone][:max_batch]
            if len(chosen) > 1:
                chosen = chosen[: self._size([source.waiting[0][0] for _, source in chosen], now_ns, curve)]
        batch = [item for _, source in chosen for item in self._serve(source, size, worker, now_ns)]
        return Selection(batch, late, stale, [key for key, _ in chosen])

    def finish(self, keys: Iterable[Key], now_ns: int) -> None:
        """End a turn: its batch is computed.

        Args:
            keys: Of the turn's `Selection`.
            now_ns: The monotonic clock.
        """
        for key in keys:
            source = self._sources.get(key)  # it may be gone by now
            if source is None:
                continue
            source.in_flight -= 1
            if source.gatherer is not None and not source.begun and source.in_flight == 0:
                source.gatherer.lead_ns = now_ns - source.taken_at_ns

    def depths(self) -> dict[Key, int]:
        """Frames waiting, per source; a set is counted as its cameras' frames, under its own name."""
        depths = {}
        for key, source in self._sources.items():
            forming = 0 if source.gatherer is None else source.gatherer.forming
            depths[key] = forming + sum(len(group) for group in source.waiting)
        return depths

    def has_turn(self, worker: int, now_ns: int) -> bool:
        """Whether `take` would find a frame."""
        if any(source.is_for(worker) for source in self._sources.values()):
            return True
        due = self.due_ns()
        return due is not None and due <= now_ns

    def due_ns(self) -> int | None:
        """When the next forming set must not be waited for any longer; None where there is none, or no hurry."""
        times = [source.gatherer.due_ns() for source in self._sources.values() if source.gatherer is not None]
        return min((due for due in times if due is not None), default=None) if times else None

    @property
    def is_empty(self) -> bool:
        """Whether no frame waits."""
        return not any(self.depths().values())

    @property
    def is_used(self) -> bool:
        """Whether there is a source that may offer something."""
        return bool(self._sources)

    @staticmethod
    def _wait(source: Source[Key, Item], group: list[Item], now_ns: int) -> list[Item]:
        """Let a group wait; returns the frames it replaced."""
        source.came_ns = now_ns
        replaced: list[Item] = []
        while source.replaces and len(source.waiting) > source.begun:
            replaced += source.waiting.pop()
        source.waiting.append(group)
        return replaced

    def _close_due(self, now_ns: int) -> list[Item]:
        replaced: list[Item] = []
        for source in self._sources.values():
            group = None if source.gatherer is None else source.gatherer.close_due(now_ns)
            if group is not None:
                replaced += self._wait(source, group, now_ns)
        return replaced

    @staticmethod
    def _size(items: Sequence[Item], now_ns: int, curve: LatencyCurve | None) -> int:
        return len(items) if curve is None else curve.best([item.deadline_ns for item in items], now_ns)

    def _serve(self, source: Source[Key, Item], count: int, worker: int, now_ns: int) -> list[Item]:
        """Take frames out of a source's first group."""
        source.served_turn = self._turn
        source.passed_over = 0
        source.worker = worker
        source.in_flight += 1
        if not source.begun:
            source.taken_at_ns = now_ns
            source.known_ns = source.came_ns if source.replaces else now_ns
        group = source.waiting[0]
        items, group[:] = group[:count], group[count:]
        source.begun = bool(group)
        if not group:
            source.waiting.popleft()
        return items


def is_late(item: Schedulable, now_ns: int) -> bool:
    """Whether a frame is past its maximum age."""
    return item.deadline_ns is not None and now_ns > item.deadline_ns


def _shed(source: Source[Key, Item], now_ns: int) -> list[Item]:
    """Take the late frames out of the group that a source would be served with."""
    late: list[Item] = []
    while source.waiting:
        group = source.waiting[0]
        gone = [item for item in group if is_late(item, now_ns)]
        if gone:
            late += gone
            group[:] = [item for item in group if item not in gone]
        if group:
            break
        source.waiting.popleft()
        source.begun = False
    return late
