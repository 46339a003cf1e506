"""Which frame may be sent next: credits, and the newest unsent frame of each camera.

Pure bookkeeping, without a network or a clock. Frames wait here and nowhere else: a frame that was handed to gRPC
sits in buffers nobody can take it back from, so one is handed over only when the server has room for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from client.errors import ProtocolViolation

T = TypeVar("T")


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
    dropped_since_sent: int = 0


class Outbox(Generic[T]):
    """One slot and a number of credits per camera, served in turn.

    Args:
        camera_ids: The cameras of the stream.
    """

    def __init__(self, camera_ids: list[str]) -> None:
        self.counts = {camera_id: Counts() for camera_id in camera_ids}
        self._lanes: dict[str, _Lane[T]] = {camera_id: _Lane() for camera_id in camera_ids}
        self._turn = list(camera_ids)
        self.most_in_flight: int | None = None
        """Frames of one camera that may be without an answer; None: credits alone count."""

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
        self._lanes[camera_id].credits += frames

    def put(self, camera_id: str, frame: T) -> T | None:
        """Let a frame wait. Returns the one it replaced, which will never be sent."""
        lane = self._lanes[camera_id]
        replaced, lane.waiting = lane.waiting, frame
        self.counts[camera_id].submitted += 1
        if replaced is not None:
            self._drop(camera_id)
        return replaced

    def take(self) -> tuple[str, T, int] | None:
        """The next frame that may be sent, with its camera and the frames dropped before it; None: none may be.

        Cameras take turns: the one served longest ago goes first.
        """
        for camera_id in self._turn:
            lane = self._lanes[camera_id]
            full = self.most_in_flight is not None and self.counts[camera_id].in_flight >= self.most_in_flight
            if lane.waiting is not None and lane.credits > 0 and not full:
                frame, dropped = lane.waiting, lane.dropped_since_sent
                lane.waiting, lane.dropped_since_sent = None, 0
                lane.credits -= 1
                self.counts[camera_id].sent += 1
                self._turn.remove(camera_id)
                self._turn.append(camera_id)
                return camera_id, frame, dropped
        return None

    def give_up(self) -> None:
        """Drop what waits."""
        for camera_id, lane in self._lanes.items():
            if lane.waiting is not None:
                lane.waiting = None
                self._drop(camera_id)

    def is_empty(self) -> bool:
        """Whether no frame waits."""
        return all(lane.waiting is None for lane in self._lanes.values())

    def _drop(self, camera_id: str) -> None:
        self.counts[camera_id].client_dropped += 1
        self._lanes[camera_id].dropped_since_sent += 1
