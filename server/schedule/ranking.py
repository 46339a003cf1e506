"""Whose turn it is: what waits of each source, and what serving it is worth."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from server.schedule.sets import Gatherable, Gatherer

STARVING_ROUNDS = 3
"""A source that was passed over this often per source goes first, whatever its priority and weight. With S sources and
batches of one, a waiting source is so served within `(STARVING_ROUNDS + 1) * S` turns."""
NEVER_SERVED_NS = 1 << 62
"""What the first frame of a source is worth."""
COST_OF_WAITING = 2
"""What a nanosecond in the slot takes from a frame's worth, against one of news. More makes the oldest frames that are
computed a little younger, and a camera's results less regular."""


class Schedulable(Protocol):
    """What the scheduler needs to know of a frame."""

    @property
    def deadline_ns(self) -> int | None:
        """Monotonic time after which an answer is of no use; None means never."""


class Waiting(Gatherable, Schedulable, Protocol):
    """What waits in a scheduler: a frame, or a request, which is never in a set."""


Key = TypeVar("Key", bound=Hashable)
Item = TypeVar("Item", bound=Waiting)


@dataclass
class Source(Generic[Key, Item]):
    """A camera, a queue of requests, or the cameras of a set.

    What waits are groups of frames: one frame, or a set. The first group may have been begun, in a batch that could
    not take all of it; it is not replaced then, and goes on before any other source. `came_ns` is when the newest group
    came, `known_ns` when the one came that was served last, or, in a queue, when that was served.
    """

    depth: int
    replaces: bool
    priority: int
    weight: int
    alone: bool
    gatherer: Gatherer[Key, Item] | None = None
    waiting: deque[list[Item]] = field(default_factory=deque)
    begun: bool = False
    came_ns: int = 0
    known_ns: int | None = None
    served_turn: int = -1
    passed_over: int = 0
    worker: int | None = None
    in_flight: int = 0
    taken_at_ns: int = 0

    def is_for(self, worker: int) -> bool:
        """Whether it has a frame that a worker may take."""
        return bool(self.waiting) and (self.in_flight == 0 or self.worker == worker)

    def worth_ns(self, now_ns: int) -> int:
        """What serving it now is worth: what its next group tells that is news, less what that has lost by waiting."""
        if self.known_ns is None:
            return NEVER_SERVED_NS
        came_ns = self.came_ns if self.replaces else now_ns  # in a queue, order counts and freshness does not
        return self.weight * (came_ns - self.known_ns) - COST_OF_WAITING * (now_ns - came_ns)

    @property
    def is_fresh(self) -> bool:
        """Whether it is a camera of which only the newest frame counts, and something is known already."""
        return self.replaces and self.gatherer is None and self.known_ns is not None

    def is_like(self, other: Source[Any, Any]) -> bool:
        """Whether it is a camera as another one is."""
        return self.is_fresh and self.weight == other.weight

    @property
    def news_ns(self) -> int:
        """What its next frame was worth when it came, of a source that was served before."""
        return self.weight * (self.came_ns - (self.known_ns or 0))


Servable = tuple[Key, Source[Key, Item]]
_WORTH = 3
"""Its place in a rank."""


def in_order(servable: Sequence[Servable[Key, Item]], now_ns: int, sources: int) -> list[Servable[Key, Item]]:
    """Sources that could be served, the first to be served first: see `Scheduler`.

    Args:
        servable: The sources by name.
        now_ns: The monotonic clock.
        sources: How many there are, with those that could not be served now.
    """
    starving = STARVING_ROUNDS * sources
    ranked = sorted((_rank(source, now_ns, starving), place) for place, (_, source) in enumerate(servable))
    rank, place = ranked[0]
    first = servable[place][1]
    if first.is_fresh:
        most = rank[_WORTH] + first.news_ns // sources  # the more it is worth, the lower it is
        chosen, served_turn = 0, first.served_turn
        for position in range(1, len(ranked)):
            rank_of_it, place = ranked[position]
            if rank_of_it[_WORTH] >= most or rank_of_it[:_WORTH] != rank[:_WORTH]:
                break
            source = servable[place][1]
            if source.served_turn > served_turn and source.is_like(first):
                chosen, served_turn = position, source.served_turn
        ranked.insert(0, ranked.pop(chosen))
    return [servable[place] for _, place in ranked]


def _rank(source: Source[Any, Any], now_ns: int, starving: int) -> tuple[bool, int, int, int, int, int]:
    starved = source.passed_over if source.passed_over >= starving else 0
    worth_ns = source.worth_ns(now_ns)
    return (not source.begun, -starved, -source.priority, -worth_ns, -source.weight, source.served_turn)
