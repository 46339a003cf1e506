"""A stream of frames: what is submitted goes out when the server has room, results come back in `async for`."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Literal, get_args

import grpc.aio

from client import inbox
from client.clock import Offset, StreamClock
from client.engine import Opened
from client.errors import ClientError, FrameInvalid, StreamClosed, StreamStalled
from client.exchange import Exchange, Waiting
from client.frames import Camera, Frame, Image
from client.geometry import check_camera, checked_pixels, frame_shape, row_bytes
from client.handshake import open_frames
from client.limits import check_bytes
from client.outbox import Counts
from client.results import Result
from client.rpc import FrameCall
from client.sets import SurroundSet
from client.shared_memory import Slot, map_slots
from protos.monocoque.v1 import stream_pb2

Policy = Literal["live", "replay"]
"""`live`: the freshest frame of each camera. `replay`: every frame, in order, held back where the server is slower."""

NOT_OPEN = "the stream is not open yet; use it inside `async with`"
STALL_SECONDS = 30.0
"""How long `send` waits for credit before it says that the server has stalled."""


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
        if policy not in get_args(Policy):
            raise FrameInvalid(f"policy {policy!r} is not one of {', '.join(get_args(Policy))}")
        self.policy = policy
        self.clock = clock
        self._address = address
        self._channel = channel
        try:
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
        except (TypeError, ValueError) as error:
            raise FrameInvalid(
                f"a number of the stream or of its cameras does not fit its field: {error}\n  → sizes, priorities and "
                "weights are whole numbers of 32 bits; ages and periods, in nanoseconds, of 64 and not negative"
            ) from None
        self._exchange = Exchange(address, self.cameras, clock, live=policy == "live")
        self._sequences = dict.fromkeys(self.cameras, 0)
        self._opened: Opened | None = None

    @property
    def opened(self) -> Opened:
        """What the server granted."""
        if self._opened is None:
            raise StreamClosed(NOT_OPEN)
        return self._opened

    @property
    def counts(self) -> Mapping[str, Counts]:
        """Frames submitted, dropped, sent and answered so far, by camera."""
        return self._exchange.outbox.counts

    @property
    def undelivered(self) -> int:
        """Frames sent that have no answer (yet)."""
        return self._exchange.inbox.in_flight

    @property
    def unread_dropped(self) -> int:
        """Results of a live stream that were forgotten, because nobody read them."""
        return self._exchange.inbox.forgotten

    @property
    def clock_offset(self) -> Offset | None:
        """Server's monotonic clock minus the stream's; None where it is not known (yet)."""
        return self._exchange.inbox.offset(self.clock.now_ns())

    @property
    def clock_steps(self) -> int:
        """How often the server's clock or this one was seen to step; each time, the offset was estimated afresh."""
        return self._exchange.inbox.clock_steps

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
        slots = self._exchange.slots
        if slots is None or self.policy == "replay":
            raise StreamClosed(
                "slot() is for live streams with shared memory: stream(cameras, shared_memory=True); "
                "a replay, which may drop nothing, takes send()"
            )
        if row_bytes(camera.encoding, camera.width) == 0:
            raise FrameInvalid(
                f"camera {camera_id} sends {camera.encoding}, whose size is not known before; use submit()"
            )
        slot = slots.take(camera_id)
        if slot is None:
            raise StreamStalled(f"a frame of camera {camera_id} is being written; one at a time")
        slot.begin()
        shape = frame_shape(camera.encoding, camera.width, camera.height)
        return slot, slot.pixels[: math.prod(shape)].reshape(shape)

    def end_slot(self, camera_id: str, slot: Slot, frame: Frame | None) -> None:
        """The second half of `slot`: submit the frame; None gives the slot back."""
        try:
            if frame is None:
                self._exchange.give_back(camera_id, slot)
            else:
                self._put(frame, slot)
        except ClientError:
            self._exchange.give_back(camera_id, slot)
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
        unread = self._exchange.inbox.unread
        if self.policy == "replay" and unread >= inbox.MAX_UNREAD:
            raise StreamStalled(f"{unread} results wait unread; read them while you send")
        await self._until_left(frame.camera_id)
        sequence = self._put(frame)
        await self._until_left(frame.camera_id)
        return sequence

    async def finish(self) -> None:
        """Send no more frames. Results keep coming, and the iteration ends when every frame has its answer.

        What waits unsent is sent in a replay, and given up in a live stream, where it would be old.
        """
        exchange = self._exchange
        if self.policy == "live":
            exchange.outbox.give_up()
        exchange.finish()
        await exchange.changed.until(lambda: exchange.ended or exchange.outbox.is_empty())

    async def close(self) -> None:
        """End the stream now; what is in flight stays without an answer."""
        await self._exchange.close(StreamClosed("the stream was closed"))

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Result:
        """The next result, in the order of arrival; ends after `finish` or `close`."""
        exchange = self._exchange_of_open()
        await exchange.changed.until(lambda: exchange.inbox.unread > 0 or exchange.ended)
        if exchange.inbox.unread:
            return exchange.inbox.read()
        if exchange.error is not None and not isinstance(exchange.error, StreamClosed):
            raise exchange.error
        raise StopAsyncIteration

    async def sets(self) -> AsyncGenerator[SurroundSet, None]:
        """The sets, each once the results of all its frames are there to be read; ends as the results do.

        Results are read apart, from the stream itself.
        """
        exchange = self._exchange_of_open()
        while True:
            await exchange.changed.until(lambda: bool(exchange.sets) or exchange.ended)
            if not exchange.sets:
                return
            yield exchange.sets.popleft()

    async def __aenter__(self) -> Stream:
        call = FrameCall(self._channel)
        self._opened, granted = await open_frames(call, self._address, self._open, self.cameras.values())
        try:
            slots = await asyncio.to_thread(map_slots, granted, self._address) if self._open.shared_memory else None
        except BaseException:
            await call.ended()
            raise
        self._exchange.start(call, self._opened, slots)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _exchange_of_open(self) -> Exchange:
        """Where to wait for what comes; raises `StreamClosed` where nothing ever would."""
        if self._opened is None:
            raise StreamClosed(NOT_OPEN)
        return self._exchange

    async def _until_left(self, camera_id: str) -> None:
        """Wait until no frame of a camera waits to be sent."""
        exchange = self._exchange
        left = exchange.changed.until(lambda: exchange.ended or exchange.has_left(camera_id))
        try:
            await asyncio.wait_for(left, STALL_SECONDS)
        except asyncio.TimeoutError:
            raise StreamStalled(
                f"the server at {self._address} gave no credit for camera {camera_id} for {STALL_SECONDS:g} s"
                "\n  → look at its log and its metrics: is its engine stuck?"
            ) from None
        if exchange.error is not None:
            raise exchange.error

    def _camera_of(self, camera_id: str) -> Camera:
        if self._exchange.finishing or self._opened is None:
            raise self._exchange.error or StreamClosed(
                "the stream takes no frames: it is not open, or finish() was called"
            )
        camera = self.cameras.get(camera_id)
        if camera is None:
            raise FrameInvalid(f"no camera {camera_id!r} in this stream; it has {', '.join(self.cameras)}")
        return camera

    def _put(self, frame: Frame, slot: Slot | None = None) -> int:
        camera = self._camera_of(frame.camera_id)
        pixels = checked_pixels(camera, frame)
        check_bytes(camera, len(pixels), self.opened)
        sequence = self._sequences[camera.id]
        self._sequences[camera.id] += 1
        captured = self.clock.now_ns() if frame.capture_time_ns is None else frame.capture_time_ns
        self._exchange.put(Waiting(frame, pixels, sequence, captured, slot))
        return sequence
