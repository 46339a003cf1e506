"""A client without our client: bytes over gRPC, so that the server's tests stand on the wire alone."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc
import grpc.aio
import numpy as np

from protos import wire
from protos.monocoque.v1 import camera_pb2, state_pb2, stream_pb2
from protos.monocoque.v1.result_pb2 import Result, SurroundSet

SERVICE = "/monocoque.v1.CameraStreamService"
PATIENCE_SECONDS = 10.0
"""Only a hang takes this long; no test measures time with it."""


def camera(camera_id: str = "front", **fields: Any) -> camera_pb2.Camera:
    fields = {"width": 64, "height": 32, "encoding": camera_pb2.ENCODING_RGB8} | fields
    return camera_pb2.Camera(id=camera_id, **fields)


def pixels(value: int = 200, width: int = 64, height: int = 32) -> bytes:
    return np.full((height, width, 3), value, np.uint8).tobytes()


def frame(sequence: int, camera_id: str = "front", data: bytes | None = None, **fields: Any) -> bytes:
    """A frame's message."""
    fields = {"encoding": camera_pb2.ENCODING_RGB8, "width": 64, "height": 32} | fields
    header = camera_pb2.FrameHeader(camera_id=camera_id, sequence=sequence, **fields)
    return wire.join(stream_pb2.StreamFramesRequest(frame=header), pixels() if data is None else data)


class RawStream:
    """One StreamFrames call; messages are sorted into results, credits and the rest as they come."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.stream_stream(f"{SERVICE}/StreamFrames")()
        self.credits: dict[str, int] = {}
        self.clock_replies: list[stream_pb2.ClockReply] = []
        self.sets: list[SurroundSet] = []

    async def open(self, cameras: Iterable[camera_pb2.Camera], **fields: Any) -> stream_pb2.Opened:
        await self.send(
            stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=cameras, **fields)).SerializeToString()
        )
        response = await self.receive()
        assert response is not None
        assert response.WhichOneof("message") == "opened"
        return response.opened

    async def send(self, message: bytes) -> None:
        await asyncio.wait_for(self.call.write(message), PATIENCE_SECONDS)

    async def receive(self) -> stream_pb2.StreamFramesResponse | None:
        """The next message; None at the end of the stream, whatever its status."""
        try:
            message = await asyncio.wait_for(self.call.read(), PATIENCE_SECONDS)
        except grpc.aio.AioRpcError:
            return None
        return None if message is grpc.aio.EOF else stream_pb2.StreamFramesResponse.FromString(message)

    async def result(self) -> Result | None:
        """The next result; None at the end of the stream."""
        while (response := await self.receive()) is not None:
            kind = response.WhichOneof("message")
            if kind == "result":
                return response.result
            if kind == "credit":
                credit = response.credit
                self.credits[credit.camera_id] = self.credits.get(credit.camera_id, 0) + credit.frames
            elif kind == "set":
                self.sets.append(response.set)
            elif kind == "clock_reply":
                self.clock_replies.append(response.clock_reply)
        return None

    async def results(self, count: int) -> list[Result]:
        found = []
        for _ in range(count):
            result = await self.result()
            assert result is not None, f"the stream ended after {len(found)} of {count} results"
            found.append(result)
        return found

    async def finish(self) -> list[Result]:
        """Send no more; returns the results that were left."""
        await self.call.done_writing()
        found = []
        while (result := await self.result()) is not None:
            found.append(result)
        return found

    async def result_count(self) -> int:
        """Read to the end; how many results there were."""
        count = 0
        while await self.result() is not None:
            count += 1
        return count

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the call ended."""
        code = await asyncio.wait_for(self.call.code(), PATIENCE_SECONDS)
        return code, await self.call.details()


class RawWatch:
    """One WatchResults call."""

    def __init__(self, channel: grpc.aio.Channel, camera_ids: Iterable[str] = ()) -> None:
        request = stream_pb2.WatchResultsRequest(camera_ids=camera_ids).SerializeToString()
        self.call: Any = channel.unary_stream(f"{SERVICE}/WatchResults")(request)

    async def started(self) -> None:
        await asyncio.wait_for(self.call.initial_metadata(), PATIENCE_SECONDS)

    async def next(self) -> stream_pb2.WatchResultsResponse | None:
        message = await asyncio.wait_for(self.call.read(), PATIENCE_SECONDS)
        return None if message is grpc.aio.EOF else stream_pb2.WatchResultsResponse.FromString(message)


class RawState:
    """One WatchState call."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call: Any = channel.unary_stream(f"{SERVICE}/WatchState")(b"")

    async def next(self) -> state_pb2.WatchStateResponse | None:
        message = await asyncio.wait_for(self.call.read(), PATIENCE_SECONDS)
        return None if message is grpc.aio.EOF else state_pb2.WatchStateResponse.FromString(message)

    async def until(self, state: int) -> list[state_pb2.WatchStateResponse]:
        """All states up to the first of this kind."""
        found = []
        while not found or found[-1].state != state:
            told = await self.next()
            assert told is not None, f"the call ended after {found}"
            found.append(told)
        return found
