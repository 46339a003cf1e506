"""A camera that sends compressed video: its access units on their way to pictures.

Every access unit is decoded, in order, on a thread of the camera's own; what is conflated are the pictures. This thread
is told one thing at a time and tells the event loop; everything else here lives on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections import deque
from typing import Protocol

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.video import Outcome, VideoDecoder
from server.frames import Frame

log = logging.getLogger("monocoque.video")

MAX_WAITING = 16
"""Access units that wait to be decoded. A client that keeps to its credits has fewer."""


class VideoOwner(Protocol):
    """What a `VideoQueue` needs of its stream; on the event loop."""

    def has_room(self) -> bool:
        """Whether a picture may be offered."""

    def offer(self, frame: Frame) -> None:
        """Let a frame with a picture wait for the engine."""

    def answer(self, frame: Frame, status: str, reason: str) -> None:
        """Answer a frame that has no picture."""

    def grant(self, frames: int) -> None:
        """Give the client leave to send more."""


class VideoQueue:
    """From access units to pictures.

    Args:
        camera: As its stream declared it.
        depth: Pictures that may wait for room; then the client gets no credit until there is some.
        owner: Its stream.
    """

    def __init__(self, camera: pb.Camera, depth: int, owner: VideoOwner) -> None:
        self._camera = camera
        self._depth = depth
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._units: queue.SimpleQueue[tuple[pb.FrameHeader, memoryview] | str] = queue.SimpleQueue()
        self._frames: dict[int, Frame] = {}
        """Those in the decoder or before it, by sequence."""
        self._pictures: deque[Frame] = deque()
        self._waiting = 0
        self._owed_credits = 0
        self._thread: threading.Thread | None = None
        self._closed = False

    def put(self, frame: Frame) -> bool:
        """Decode a frame's access unit when its turn comes; False where too many wait."""
        if self._waiting == MAX_WAITING:
            return False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"video {self._camera.id}", daemon=True)
            self._thread.start()
        self._waiting += 1
        self._frames[frame.header.sequence] = frame
        self._units.put((frame.header, frame.pixels))
        return True

    def flush(self) -> None:
        """No more access units come: pictures that are held back for reordering are let out."""
        self._units.put("flush")

    def close(self) -> list[Frame]:
        """End the thread; returns the frames that have no answer."""
        self._closed = True
        self._units.put("end")
        left = [*self._frames.values(), *self._pictures]
        self._frames.clear()
        self._pictures.clear()
        return left

    def pump(self) -> None:
        """Offer pictures while there is room, and give credit while there are few."""
        while self._pictures and self._owner.has_room():
            self._owner.offer(self._pictures.popleft())
        if self._owed_credits and len(self._pictures) < self._depth:
            self._owner.grant(self._owed_credits)
            self._owed_credits = 0

    def _finished(self, units: int, outcomes: list[Outcome]) -> None:
        if self._closed:
            return
        self._waiting -= units
        self._owed_credits += units
        for outcome in outcomes:
            frame = self._frames.pop(outcome.sequence, None)
            if frame is None:
                continue
            if outcome.picture is None:
                self._owner.answer(frame, outcome.status, outcome.reason)
            else:
                frame.take_picture(outcome.picture)
                self._pictures.append(frame)
        self.pump()

    def _run(self) -> None:
        decoder = VideoDecoder(self._camera)
        while (unit := self._units.get()) != "end":
            units = 0 if isinstance(unit, str) else 1
            try:
                outcomes = decoder.flush() if isinstance(unit, str) else decoder.decode(*unit)
            except Exception as error:  # a bug of ours must cost this frame and what builds on it, and no more
                log.exception("camera %s: an access unit was not decoded", self._camera.id)
                decoder = VideoDecoder(self._camera)
                reason = f"the server failed to decode this access unit: {type(error).__name__}: {error}"
                outcomes = [] if isinstance(unit, str) else [Outcome(unit[0].sequence, None, "failed", reason)]
            del unit
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._finished, units, outcomes)
            del outcomes
