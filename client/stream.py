"""A stream of frames: what is submitted goes out when the server has room, results come back in `async for`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

import grpc
import grpc.aio

from client import inbox
from client.clock import Offset, StreamClock
from client.engine import Opened
from client.errors import (
    ClientError,
    FrameInvalid,
    ProtocolViolation,
    StreamClosed,
    StreamStalled,
)
from client.frames import Camera, Frame, Image
from client.geometry import check_camera, checked_pixels, frame_shape, row_bytes
from client.handshake import loss, open_frames
from client.header import frame_header
from client.limits import check_bytes
from client.outbox import Counts, Outbox
from client.results import Result, Sent
from client.rpc import FrameCall, parse_response
from client.sets import MAX_UNREAD_SETS, SurroundSet, set_from_proto
from client.shared_memory import SharedSlots, Slot, map_slots
from protos import wire
from protos.monocoque.v1 import stream_pb2

Policy = Literal["live", "replay"]
"""`live`: the freshest frame of each camera. `replay`: every frame, in order, held back where the server is slower."""

STALL_SECONDS = 30.0
"""How long `send` waits for credit before it says that the server has stalled."""

CLOSE_SECONDS = 1.0
"""For what is under way to end with its call; it takes less than a millisecond."""

PROBE_SECONDS = 1.0
"""Time between two questions about the server's clock; the first few come ten times as fast."""


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A frame that waits to be sent; where it was written straight into shared memory, with its slot."""

    frame: Frame
    pixels: memoryview
    sequence: int
    capture_time_ns: int
    slot: Slot | None = None


class Stream:
    """One bidirectional stream, made by `Connection.stream`; open inside `async with`.

    Attributes:
        cameras: Its cameras by id.
        policy: `live` or `replay`.
        clock: What its capture times mean.
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
        shared_memory: bool,
        sets: stream_pb2.Sets | None = None,
        engine: str = "",
        engine_version: str = "",
    ) -> None:
        for camera in cameras:
            check_camera(camera)
        self.cameras = {camera.id: camera for camera in cameras}
        if not cameras or len(self.cameras) != len(cameras):
            names = ", ".join(camera.id for camera in cameras) or "none"
            raise FrameInvalid(f"a stream needs at least one camera and no id twice; these are: {names}")
        self.policy = policy
        self.clock = clock
        self._address = address
        self._channel = channel
        self._open = stream_pb2.Open(
            cameras=[camera.to_proto() for camera in cameras],
            policy=stream_pb2.POLICY_REPLAY if policy == "replay" else stream_pb2.POLICY_LIVE,
            clock=clock.declaration(),
            priority=priority,
            max_age_ns=max_age_ns,
            tensors=tensors,
            shared_memory=shared_memory,
            credits_with_results=True,
            sets=sets,
            engine=engine,
            engine_version=engine_version,
        )
        self._outbox: Outbox[_Waiting] = Outbox(list(self.cameras))
        self._leaving: str | None = None
        """The camera whose frame is being handed to gRPC."""
        self._slots: SharedSlots | None = None
        self._sequences = dict.fromkeys(self.cameras, 0)
        self._inbox = inbox.Inbox(forgets=policy == "live")
        self._sets: deque[SurroundSet] = deque(maxlen=MAX_UNREAD_SETS)
        self._call: FrameCall | None = None
        self._opened: Opened | None = None
        self._probe_due = False
        self._finishing = False
        self._ended = False
        self._error: ClientError | None = None
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: asyncio.Task[None] | None = None

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
        return self._inbox.in_flight

    @property
    def unread_dropped(self) -> int:
        """Results of a live stream that were forgotten, because nobody read them."""
        return self._inbox.forgotten

    @property
    def clock_offset(self) -> Offset | None:
        """Server's monotonic clock minus the stream's; None where it is not known (yet)."""
        return self._inbox.offset(self.clock.now_ns())

    @property
    def clock_steps(self) -> int:
        """How often the server's clock or this one was seen to step; each time, the offset was estimated afresh."""
        return self._inbox.clock_steps

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

    @contextlib.contextmanager
    def slot(
        self,
        camera_id: str,
        *,
        capture_time_ns: int | None = None,
        max_age_ns: int | None = None,
        context: object = None,
    ) -> Iterator[Image]:
        """Write a frame where the server reads it: nothing is copied. It is submitted when the block ends.

        ```python
        with stream.slot("front") as pixels:  # (H, W, 3) for rgb8
            camera.read_into(pixels)
        ```

        The pixels are `result.frame.pixels` later, until the slot's next frame is written.

        Args:
            camera_id: A camera of the stream, with an uncompressed encoding.
            capture_time_ns: See `Frame`.
            max_age_ns: See `Frame`.
            context: See `Frame`.

        Yields:
            An array of `uint8`, shaped as `Frame.pixels` says.

        Raises:
            FrameInvalid: The camera's frames are compressed, or it has none of that name.
            StreamClosed: The stream has ended, has no shared memory, or is a replay.
            StreamStalled: A frame of this camera is being written already.
        """
        slot, pixels = self.begin_slot(camera_id)
        frame: Frame | None = None
        try:
            yield pixels
            frame = Frame(camera_id, pixels, capture_time_ns, max_age_ns=max_age_ns, context=context)
        finally:
            self.end_slot(camera_id, slot, frame)

    def begin_slot(self, camera_id: str) -> tuple[Slot, Image]:
        """The first half of `slot`: where to write, and the part of it that is the frame."""
        camera = self._camera_of(camera_id)
        if self._slots is None or self.policy == "replay":
            raise StreamClosed(
                "slot() is for live streams with shared memory: stream(cameras, shared_memory=True); "
                "a replay, which may drop nothing, takes send()"
            )
        if row_bytes(camera.encoding, camera.width) == 0:
            raise FrameInvalid(
                f"camera {camera_id} sends {camera.encoding}, whose size is not known before; use submit()"
            )
        slot = self._slots.take(camera_id)
        if slot is None:
            raise StreamStalled(f"a frame of camera {camera_id} is being written; one at a time")
        slot.begin()
        shape = frame_shape(camera.encoding, camera.width, camera.height)
        return slot, slot.pixels[: math.prod(shape)].reshape(shape)

    def end_slot(self, camera_id: str, slot: Slot, frame: Frame | None) -> None:
        """The second half of `slot`: submit the frame; None gives the slot back."""
        try:
            if frame is None:
                self._give_back(camera_id, slot)
            else:
                self._put(frame, slot)
        except ClientError:
            self._give_back(camera_id, slot)
            raise

    async def send(self, frame: Frame) -> int:
        """Send a frame for certain: wait until it has left.

        Returns:
            Its sequence number.

        Raises:
            FrameInvalid: The server would refuse it.
            StreamClosed: The stream has ended.
            StreamStalled: No credit came for `STALL_SECONDS`, or `inbox.MAX_UNREAD` results wait to be read.
        """
        self._camera_of(frame.camera_id)
        if self.policy == "replay" and self._inbox.unread >= inbox.MAX_UNREAD:
            raise StreamStalled(f"{self._inbox.unread} results wait unread; read them while you send")
        await self._until_free(frame.camera_id)
        sequence = self._put(frame)
        await self._until_free(frame.camera_id)
        await self._until(lambda: self._ended or self._leaving != frame.camera_id)
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
        if self._asking is not None:
            self._asking.cancel()
        if self._call is not None:
            await self._call.ended()
        if (
            self._tasks
        ):  # gRPC keeps the memory of a read or write that is cancelled; with their call, they end themselves
            _, left = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._slots is not None:
            self._slots.close()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Result:
        """The next result, in the order of arrival; ends after `finish` or `close`."""
        await self._until(lambda: self._inbox.unread > 0 or self._ended)
        if self._inbox.unread:
            return self._inbox.read()
        if self._error is not None and not isinstance(self._error, StreamClosed):
            raise self._error
        raise StopAsyncIteration

    async def sets(self) -> AsyncGenerator[SurroundSet, None]:
        """The sets, each once the results of all its frames are there to be read; ends as the results do.

        Results are read apart, from the stream itself.
        """
        while True:
            await self._until(lambda: bool(self._sets) or self._ended)
            if not self._sets:
                return
            yield self._sets.popleft()

    async def __aenter__(self) -> Stream:
        call = self._call = FrameCall(self._channel)
        self._opened, granted = await open_frames(call, self._address, self._open, self.cameras.values())
        if self._open.shared_memory:
            try:
                self._slots = await asyncio.to_thread(map_slots, granted, self._address)
            except BaseException:
                await call.ended()
                raise
            self._outbox.most_in_flight = self._slots.in_flight
        self._inbox.same_clock = self._opened.same_clock
        for camera_id in self.cameras:
            self._outbox.grant(camera_id, self._opened.credits)
        self._tasks = [asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))]
        if not self._opened.same_clock:
            self._asking = asyncio.create_task(self._ask_the_time())
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

    def _camera_of(self, camera_id: str) -> Camera:
        if self._ended or self._finishing or self._opened is None:
            raise self._error or StreamClosed("the stream takes no frames: it is not open, or finish() was called")
        camera = self.cameras.get(camera_id)
        if camera is None:
            raise FrameInvalid(f"no camera {camera_id!r} in this stream; it has {', '.join(self.cameras)}")
        return camera

    def _give_back(self, camera_id: str, slot: Slot | None) -> None:
        """A slot whose frame will not be sent."""
        if self._slots is not None and slot is not None:
            self._slots.give_back(camera_id, slot)

    def _put(self, frame: Frame, slot: Slot | None = None) -> int:
        camera = self._camera_of(frame.camera_id)
        pixels = checked_pixels(camera, frame)
        check_bytes(camera, len(pixels), self.opened)
        sequence = self._sequences[camera.id]
        self._sequences[camera.id] += 1
        captured = self.clock.now_ns() if frame.capture_time_ns is None else frame.capture_time_ns
        replaced = self._outbox.put(camera.id, _Waiting(frame, pixels, sequence, captured, slot))
        if replaced is not None:
            self._give_back(camera.id, replaced.slot)
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
                    self._leaving = taken[0]
                    await self._write_frame(call, *taken)
                    self._leaving = None
                    self._wake()
                elif self._finishing and self._outbox.is_empty():
                    await call.done_writing()
                    return
                else:
                    await self._changed.wait()

    async def _write_frame(self, call: FrameCall, camera_id: str, waiting: _Waiting, dropped: int) -> None:
        """Hand a frame to gRPC; from here on it is in flight."""
        camera, sequence = self.cameras[camera_id], waiting.sequence
        header = frame_header(camera, waiting.frame, sequence, waiting.capture_time_ns, dropped)
        header.client_send_time_ns = self.clock.now_ns()
        self._inbox.expect(
            camera_id, sequence, Sent(waiting.frame, waiting.capture_time_ns, header.client_send_time_ns)
        )
        request = stream_pb2.StreamFramesRequest(frame=header)
        if self._slots is None:
            messages = wire.pieces(request, waiting.pixels, self.opened.piece_bytes)
        else:
            request.slot.CopyFrom(self._slots.send(camera_id, sequence, waiting.pixels, waiting.slot))
            messages = iter([request.SerializeToString()])
        for message in messages:
            await call.write(message)

    async def _read(self, call: FrameCall) -> None:
        """Take in everything the server says, at once: credits must not wait for the user."""
        try:
            while (message := await call.read()) is not None:
                self._take_in(parse_response(message), self.clock.now_ns())
            self._end(None if self._finishing else await loss(call, self._address, self.undelivered))
        except grpc.aio.AioRpcError:
            self._end(await loss(call, self._address, self.undelivered))
        except ClientError as error:
            self._end(error)
        finally:
            call.cancel()

    def _take_in(self, response: stream_pb2.StreamFramesResponse, now_ns: int) -> None:
        for credit in response.credits:
            self._outbox.grant(credit.camera_id, credit.frames)
        kind = response.WhichOneof("message")
        if kind == "result":
            self._inbox.take_result(response.result, now_ns)
            self.counts[response.result.camera_id].answered += 1
            if self._slots is not None:
                self._slots.answered(response.result.camera_id, response.result.sequence)
        elif kind == "credit":
            self._outbox.grant(response.credit.camera_id, response.credit.frames)
        elif kind == "set":
            self._sets.append(set_from_proto(response.set))
        elif kind == "clock_reply":
            self._inbox.take_time(response.clock_reply, now_ns)
        else:
            raise ProtocolViolation(f"the server sent {kind or 'an empty message'} on an open stream")
        self._wake()

    async def _ask_the_time(self) -> None:
        asked = 0
        while not self._ended:
            self._probe_due = True
            self._wake()
            asked += 1
            await asyncio.sleep(PROBE_SECONDS if asked > 8 else PROBE_SECONDS / 10)

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
