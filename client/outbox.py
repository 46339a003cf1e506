"""Which frame may be sent next: credits, and the newest unsent frame of each camera.

Pure bookkeeping, without a network or a clock. Frames wait here and nowhere else: a frame that was handed to gRPC
sits in buffers nobody can take it back from, so one is handed over only when the server has room for it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from client.errors import ProtocolViolation

T = TypeVar("T")

BYTES_ON_THEIR_WAY = 1 << 20
"""Of a stream that wants the freshest frames, unless one frame alone is larger: frames that share the way are all older
at its end, and one that waits here may still be replaced."""
COST_OF_AGE = 2
"""What a nanosecond of a frame's age counts against one by which it is newer than the last: as in the server."""


@dataclass
class Counts:
    """Frames of one camera so far.

    Attributes:
        submitted: Given to the stream.
        client_dropped: Replaced by a newer one, or given up, before the server had room.
        sent: Handed to gRPC.
        answered: Whose result has come back.
    """

    submitted: int = 0
    client_dropped: int = 0
    sent: int = 0
    answered: int = 0

    @property
    def in_flight(self) -> int:
        """Sent and not answered."""
        return self.sent - self.answered


@dataclass
class _Lane(Generic[T]):
    credits: int = 0
    waiting: T | None = None
    size_bytes: int = 0
    came_ns: int = 0
    known_ns: int | None = None
    dropped_since_sent: int = 0
    on_their_way: deque[int] = field(default_factory=deque)


class Outbox(Generic[T]):
    """One slot and a number of credits per camera.

    Args:
        camera_ids: The cameras of the stream.
        hurries: Whether the freshest frames are wanted. Credits then tell that frames have come, few are on their way
            at a time, and of those that wait the one goes first that says most: it is much newer than what was sent of
            its camera before, and young. Else cameras take turns.
    """

    def __init__(self, camera_ids: list[str], hurries: bool = False) -> None:
        self.counts = {camera_id: Counts() for camera_id in camera_ids}
        self._lanes: dict[str, _Lane[T]] = {camera_id: _Lane() for camera_id in camera_ids}
        self._turn = list(camera_ids)
        self.most_in_flight: int | None = None
        """Frames of one camera that may be without an answer; None: credits alone count."""
        self._hurries = hurries
        self._bytes_on_their_way = 0

    def credits(self, camera_id: str) -> int:
        """Frames of a camera that may be sent now."""
        return self._lanes[camera_id].credits

    def is_free(self, camera_id: str) -> bool:
        """Whether a frame put in would replace none."""
        return self._lanes[camera_id].waiting is None

    def grant(self, camera_id: str, frames: int) -> None:
        """Add credits.

        Raises:
            ProtocolViolation: For a camera that the stream does not have.
        """
        if camera_id not in self._lanes:
            raise ProtocolViolation(f"the server gave credit for camera {camera_id!r}, which this stream does not have")
        lane = self._lanes[camera_id]
        lane.credits += frames
        for _ in range(min(frames, len(lane.on_their_way))):
            self._bytes_on_their_way -= lane.on_their_way.popleft()

    def put(self, camera_id: str, frame: T, size_bytes: int = 0, now_ns: int = 0) -> T | None:
        """Let a frame wait. Returns the one it replaced, which will never be sent.

        Args:
            camera_id: Its camera.
            frame: The frame.
            size_bytes: What it takes on its way.
            now_ns: The monotonic clock.
        """
        lane = self._lanes[camera_id]
        replaced, lane.waiting, lane.size_bytes, lane.came_ns = lane.waiting, frame, size_bytes, now_ns
        self.counts[camera_id].submitted += 1
        if replaced is not None:
            self._drop(camera_id)
        return replaced

    def take(self) -> tuple[str, T, int] | None:
        """The next frame that may be sent, with its camera and the frames dropped before it; None: none may be."""
        ready = [camera_id for camera_id in self._turn if self._may_leave(camera_id)]
        if not ready:
            return None
        camera_id = max(ready, key=self._worth) if self._hurries else ready[0]
        lane = self._lanes[camera_id]
        frame, dropped = lane.waiting, lane.dropped_since_sent
        assert frame is not None  # noqa: S101 - it may leave
        lane.waiting, lane.dropped_since_sent, lane.known_ns = None, 0, lane.came_ns
        lane.credits -= 1
        lane.on_their_way.append(lane.size_bytes)
        self._bytes_on_their_way += lane.size_bytes
        self.counts[camera_id].sent += 1
        self._turn.remove(camera_id)
        self._turn.append(camera_id)
        return camera_id, frame, dropped

    def give_up(self) -> None:
        """Drop what waits."""
        for camera_id, lane in self._lanes.items():
            if lane.waiting is not None:
                lane.waiting = None
                self._drop(camera_id)

    def is_empty(self) -> bool:
        """Whether no frame waits."""
        return all(lane.waiting is None for lane in self._lanes.values())

    def _may_leave(self, camera_id: str) -> bool:
        lane = self._lanes[camera_id]
        full = self.most_in_flight is not None and self.counts[camera_id].in_flight >= self.most_in_flight
        if lane.waiting is None or lane.credits <= 0 or full:
            return False
        on_their_way = self._bytes_on_their_way
        return not self._hurries or not on_their_way or on_their_way + lane.size_bytes <= BYTES_ON_THEIR_WAY

    def _worth(self, camera_id: str) -> float:
        """What sending a camera's frame is worth, but for what is the same for all: the time it is now."""
        lane = self._lanes[camera_id]
        if lane.known_ns is None:
            return math.inf
        return lane.came_ns - lane.known_ns + COST_OF_AGE * lane.came_ns

    def _drop(self, camera_id: str) -> None:
        self.counts[camera_id].client_dropped += 1
        self._lanes[camera_id].dropped_since_sent += 1
