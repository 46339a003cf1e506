"""A stream of frames: what is submitted goes out when the server has room, results come back in `async for`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Literal

import grpc
import grpc.aio

from client.clock import Exchange, Offset, OffsetFilter, StreamClock
from client.engine import Opened, opened_from_proto
from client.errors import (
    ClientError,
    ConnectionLost,
    FrameInvalid,
    ProtocolViolation,
    ServerUnreachable,
    StreamClosed,
    StreamStalled,
)
from client.frames import Camera, Frame
from client.geometry import check_camera, checked_pixels
from client.header import frame_header
from client.limits import check_bytes, check_size
from client.outbox import Counts, Outbox
from client.results import Result, Sent, result_from_proto
from client.rpc import FrameCall, error_of, parse_response
from protos import wire
from protos.monocoque.v1 import result_pb2, stream_pb2

Policy = Literal["live", "replay"]
"""`live`: the freshest frame of each camera. `replay`: every frame, in order, held back where the server is slower."""

MAX_UNREAD = 10_000
"""Results that wait to be read. Beyond it a live stream forgets the oldest, and a replay stops sending."""

STALL_SECONDS = 30.0
"""How long `send` waits for credit before it says that the server has stalled."""

PROBE_SECONDS = 1.0
"""Time between two questions about the server's clock; the first few come ten times as fast."""


class Stream:
    """One bidirectional stream, made by `Connection.stream`; open inside `async with`.

    Attributes:
        cameras: Its cameras by id.
        policy: `live` or `replay`.
        clock: What its capture times mean.
        unread_dropped: Results of a live stream that were forgotten because nobody read them.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        address: str,
        cameras: Sequence[Camera],
        policy: Policy,
        clock: StreamClock,
        priority: int,
        max_age_ns: int,
        tensors: Sequence[str],
    ) -> None:
        for camera in cameras:
            check_camera(camera)
        self.cameras = {camera.id: camera for camera in cameras}
        if not cameras or len(self.cameras) != len(cameras):
            names = ", ".join(camera.id for camera in cameras) or "none"
            raise FrameInvalid(f"a stream needs at least one camera and no id twice; these are: {names}")
        self.policy = policy
        self.clock = clock
        self.unread_dropped = 0
        self._address = address
        self._channel = channel
        self._open = stream_pb2.Open(
            cameras=[camera.to_proto() for camera in cameras],
            policy=stream_pb2.POLICY_REPLAY if policy == "replay" else stream_pb2.POLICY_LIVE,
            clock=clock.declaration(),
            priority=priority,
            max_age_ns=max_age_ns,
            tensors=tensors,
        )
        self._outbox: Outbox[tuple[Frame, memoryview, int, int]] = Outbox(list(self.cameras))
        self._sequences = dict.fromkeys(self.cameras, 0)
        self._in_flight: dict[tuple[str, int], Sent] = {}
        self._unread: deque[Result] = deque()
        self._offsets = OffsetFilter()
        self._call: FrameCall | None = None
        self._opened: Opened | None = None
        self._probe_due = False
        self._finishing = False
        self._ended = False
        self._error: ClientError | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def opened(self) -> Opened:
        """What the server granted."""
        if self._opened is None:
            raise StreamClosed("the stream is not open yet; use it inside `async with`")
        return self._opened

    @property
    def counts(self) -> Mapping[str, Counts]:
        """Frames submitted, dropped, sent and answered so far, by camera."""
        return self._outbox.counts

    @property
    def undelivered(self) -> int:
        """Frames sent that have no answer (yet)."""
        return len(self._in_flight)

    @property
    def clock_offset(self) -> Offset | None:
        """Server's monotonic clock minus the stream's; None where it is not known (yet)."""
        if self._opened is not None and self._opened.same_clock:
            return Offset(0, 0)
        return self._offsets.estimate(self.clock.now_ns())

    def submit(self, frame: Frame) -> int:
        """Offer a frame of a live stream, without waiting: it replaces this camera's unsent one, if any.

        Returns:
            Its sequence number.

        Raises:
            FrameInvalid: The server would refuse it.
            StreamClosed: The stream has ended, or is a replay, which may drop nothing.
        """
        if self.policy == "replay":
            raise StreamClosed("submit() may drop frames, which a replay must not; use send(), which waits")
        return self._put(frame)

    async def send(self, frame: Frame) -> int:
        """Send a frame for certain: wait until it has left.

        Returns:
            Its sequence number.

        Raises:
            FrameInvalid: The server would refuse it.
            StreamClosed: The stream has ended.
            StreamStalled: No credit came for `STALL_SECONDS`, or `MAX_UNREAD` results wait to be read.
        """
        self._camera_of(frame)
        if self.policy == "replay" and len(self._unread) >= MAX_UNREAD:
            raise StreamStalled(f"{len(self._unread)} results wait unread; read them while you send")
        await self._until_free(frame.camera_id)
        sequence = self._put(frame)
        await self._until_free(frame.camera_id)
        return sequence

    async def finish(self) -> None:
        """Send no more frames. Results keep coming, and the iteration ends when every frame has its answer.

        What waits unsent is sent in a replay, and given up in a live stream, where it would be old.
        """
        if self.policy == "live":
            self._outbox.give_up()
        self._finishing = True
        self._wake()
        await self._until(lambda: self._ended or self._outbox.is_empty())

    async def close(self) -> None:
        """End the stream now; what is in flight stays without an answer."""
        self._end(StreamClosed("the stream was closed"))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._call is not None:
            await self._call.ended()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Result:
        """The next result, in the order of arrival; ends after `finish` or `close`."""
        await self._until(lambda: bool(self._unread) or self._ended)
        if self._unread:
            return self._unread.popleft()
        if self._error is not None and not isinstance(self._error, StreamClosed):
            raise self._error
        raise StopAsyncIteration

    async def __aenter__(self) -> Stream:
        call = self._call = FrameCall(self._channel)
        try:
            await call.write(stream_pb2.StreamFramesRequest(open=self._open).SerializeToString())
            answer = await call.read()
            if answer is None:
                raise ProtocolViolation(f"the server at {self._address} ended the stream instead of opening it")
            response = parse_response(answer)
            if not response.HasField("opened"):
                raise ProtocolViolation(
                    f"the server at {self._address} answered Open with {response.WhichOneof('message') or 'nothing'}"
                )
            self._opened = opened_from_proto(response.opened)
            for camera in self.cameras.values():
                check_size(camera, self._opened)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            raise await self._failure(call) from None
        except BaseException:
            call.cancel()
            raise
        for camera_id in self.cameras:
            self._outbox.grant(camera_id, self._opened.credits)
        self._tasks = [asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))]
        if not self._opened.same_clock:
            self._tasks.append(asyncio.create_task(self._ask_the_time()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _until_free(self, camera_id: str) -> None:
        free = self._until(lambda: self._ended or self._outbox.is_free(camera_id))
        try:
            await asyncio.wait_for(free, STALL_SECONDS)
        except asyncio.TimeoutError:
            raise StreamStalled(
                f"the server at {self._address} gave no credit for camera {camera_id} for {STALL_SECONDS:g} s"
                "\n  → look at its log and its metrics: is its engine stuck?"
            ) from None
        if self._error is not None:
            raise self._error

    def _camera_of(self, frame: Frame) -> Camera:
        if self._ended or self._finishing or self._opened is None:
            raise self._error or StreamClosed("the stream takes no frames: it is not open, or finish() was called")
        camera = self.cameras.get(frame.camera_id)
        if camera is None:
            raise FrameInvalid(f"no camera {frame.camera_id!r} in this stream; it has {', '.join(self.cameras)}")
        return camera

    def _put(self, frame: Frame) -> int:
        camera = self._camera_of(frame)
        pixels = checked_pixels(camera, frame)
        check_bytes(camera, len(pixels), self.opened)
        sequence = self._sequences[camera.id]
        self._sequences[camera.id] += 1
        captured = self.clock.now_ns() if frame.capture_time_ns is None else frame.capture_time_ns
        self._outbox.put(camera.id, (frame, pixels, sequence, captured))
        self._wake()
        return sequence

    async def _write(self, call: FrameCall) -> None:
        """Hand frames to gRPC as credits allow, one at a time."""
        # When the call fails, the reader sees why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            while not self._ended:
                if self._probe_due:
                    self._probe_due = False
                    probe = stream_pb2.ClockProbe(client_time_ns=self.clock.now_ns())
                    await call.write(stream_pb2.StreamFramesRequest(clock_probe=probe).SerializeToString())
                elif (taken := self._outbox.take()) is not None:
                    camera_id, (frame, pixels, sequence, captured), dropped = taken
                    header = frame_header(self.cameras[camera_id], frame, sequence, captured, dropped)
                    header.client_send_time_ns = self.clock.now_ns()
                    sent = Sent(frame, captured, header.client_send_time_ns)
                    self._in_flight[camera_id, sequence] = sent
                    self._wake()
                    await call.write(wire.join(stream_pb2.StreamFramesRequest(frame=header), pixels))
                elif self._finishing and self._outbox.is_empty():
                    await call.done_writing()
                    return
                else:
                    await self._changed.wait()

    async def _read(self, call: FrameCall) -> None:
        """Take in everything the server says, at once: credits must not wait for the user."""
        try:
            while (message := await call.read()) is not None:
                self._take_in(parse_response(message), self.clock.now_ns())
            self._end(None if self._finishing else await self._failure(call))
        except grpc.aio.AioRpcError:
            self._end(await self._failure(call))
        except ClientError as error:
            self._end(error)
        finally:
            call.cancel()

    def _take_in(self, response: stream_pb2.StreamFramesResponse, now_ns: int) -> None:
        kind = response.WhichOneof("message")
        if kind == "result":
            self._take_result(response.result, now_ns)
        elif kind == "credit":
            self._outbox.grant(response.credit.camera_id, response.credit.frames)
        elif kind == "clock_reply":
            reply = response.clock_reply
            self._offsets.add(
                Exchange(reply.client_time_ns, reply.server_receive_time_ns, reply.server_send_time_ns, now_ns)
            )
        else:
            raise ProtocolViolation(
                f"the server at {self._address} sent {kind or 'an empty message'} on an open stream"
            )
        self._wake()

    def _take_result(self, message: result_pb2.Result, now_ns: int) -> None:
        sent = self._in_flight.pop((message.camera_id, message.sequence), None)
        if sent is None:
            raise ProtocolViolation(
                f"the server at {self._address} answered frame {message.sequence} of camera {message.camera_id!r}, "
                "which is not in flight"
            )
        self.counts[message.camera_id].answered += 1
        if self.policy == "live" and len(self._unread) >= MAX_UNREAD:
            self._unread.popleft()
            self.unread_dropped += 1
        self._unread.append(result_from_proto(message, sent, now_ns, self.clock_offset))

    async def _ask_the_time(self) -> None:
        asked = 0
        while not self._ended:
            self._probe_due = True
            self._wake()
            asked += 1
            await asyncio.sleep(PROBE_SECONDS if asked > 8 else PROBE_SECONDS / 10)

    async def _failure(self, call: FrameCall) -> ClientError:
        code, details = await call.status()
        if code is grpc.StatusCode.OK:
            return ConnectionLost(f"the server at {self._address} ended the stream", self.undelivered)
        error = error_of(code, details, self._address)
        if self._opened is not None and isinstance(error, ServerUnreachable):
            return ConnectionLost(
                f"lost the server at {self._address} with {self.undelivered} frames unanswered: {details}"
                "\n  → is it still running? its log says why it stopped",
                self.undelivered,
            )
        return error

    def _end(self, error: ClientError | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.wait()
