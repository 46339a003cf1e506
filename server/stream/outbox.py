"""Messages on their way to one client: bounded, whoever does not read."""

from __future__ import annotations

import asyncio
from collections import deque

from protos.monocoque.v1.stream_pb2 import Credit, StreamFramesResponse

MAX_UNREAD_MESSAGES = 1024
"""Three seconds of six cameras at 30 frames/s, each with a result: a client that pauses longer is not reading."""
MAX_UNREAD_BYTES = 64 << 20
CREDIT_DELAY_SECONDS = 0.0005
"""A frame has just arrived, and writing takes the interpreter for 0.1 ms: the engine's thread gets it first. The wait
took 0.1 ms off a frame of 0.5 ms, and is nothing beside the period of a camera."""


class Outbox:
    """Messages that gRPC has not taken yet.

    Each frame is answered exactly once, so results are never dropped or merged: a client that does not read them loses
    its stream instead. Credits are merged per camera, so they cannot pile up; they go after the messages, so that a
    client which falls behind in reading is given no leave to send.

    Args:
        joins: Whether the client takes credits beside its last message, instead of in messages of their own.
    """

    def __init__(self, joins: bool = False) -> None:
        self._joins = joins
        self._messages: deque[bytes] = deque()
        self._credits: dict[str, int] = {}
        self._bytes = 0
        self._changed = asyncio.Event()
        self._finished = False
        self.full = asyncio.Event()
        """Set for good once a bound is passed."""

    def put(self, message: bytes) -> None:
        """Add a message."""
        self._messages.append(message)
        self._bytes += len(message)
        if len(self._messages) > MAX_UNREAD_MESSAGES or self._bytes > MAX_UNREAD_BYTES:
            self.full.set()
        self._changed.set()

    def add_credit(self, camera_id: str) -> None:
        """Give leave to send one more frame."""
        if not self._credits and not (self._joins and self._messages):  # else it goes with one that is about to leave
            asyncio.get_running_loop().call_later(CREDIT_DELAY_SECONDS, self._changed.set)
        self._credits[camera_id] = self._credits.get(camera_id, 0) + 1

    def finish(self) -> None:
        """Nothing will be added any more."""
        self._finished = True
        self._changed.set()

    def close(self) -> None:
        """Forget what was not sent: the stream has ended."""
        self._messages.clear()
        self._credits.clear()
        self.finish()

    async def next(self) -> bytes | None:
        """The next message, credits last; None when all is sent and nothing will be added."""
        while not self._credits and not self._messages:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        if self._messages:
            message = self._messages.popleft()
            self._bytes -= len(message)
            if self._joins and self._credits and not self._messages:
                # Fields of a message may come in pieces: https://protobuf.dev/programming-guides/encoding/
                credits = [Credit(camera_id=camera_id, frames=frames) for camera_id, frames in self._credits.items()]
                self._credits.clear()
                message += StreamFramesResponse(credits=credits).SerializeToString()
            return message
        camera_id, frames = self._credits.popitem()
        return StreamFramesResponse(credit=Credit(camera_id=camera_id, frames=frames)).SerializeToString()

    def __len__(self) -> int:
        return len(self._messages)
