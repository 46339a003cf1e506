"""The two directions of an open stream, a task for each: frames out as credits allow, everything the server says in."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import grpc
import grpc.aio

from client.clock import StreamClock
from client.engine import Opened
from client.errors import ClientError, ProtocolViolation
from client.frames import Camera, Frame
from client.handshake import loss
from client.header import frame_header
from client.inbox import Inbox
from client.outbox import Outbox
from client.results import Sent
from client.rpc import FrameCall, parse_response
from client.sets import MAX_UNREAD_SETS, SurroundSet, set_from_proto
from client.shared_memory import SharedSlots, Slot
from client.signal import Signal
from protos import wire
from protos.monocoque.v1 import stream_pb2

CLOSE_SECONDS = 1.0
"""For what is under way to end with its call; it takes less than a millisecond."""

PROBE_SECONDS = 1.0
"""Time between two questions about the server's clock; the first few come ten times as fast."""


@dataclass(frozen=True, eq=False)
class Waiting:
    """A frame that waits to be sent; where it was written straight into shared memory, with its slot."""

    frame: Frame
    pixels: memoryview
    sequence: int
    capture_time_ns: int
    slot: Slot | None = None


class Exchange:
    """What is on its way between the client and the server, from `start` to `close`.

    Args:
        address: The server's, for messages.
        cameras: Of the stream, by id.
        clock: Of the stream.
        live: Whether only the freshest frames count: few are then on their way at a time, and results that nobody
            reads are forgotten.

    Attributes:
        outbox: Frames that wait to be sent.
        inbox: Results that wait to be read.
        sets: Sets that wait to be read.
        slots: The stream's shared memory, if it has one.
        changed: Woken when something came, a frame has left, or the stream has ended.
        ended: Whether nothing more will come.
        error: Why, where that was not asked for.
    """

    def __init__(self, address: str, cameras: Mapping[str, Camera], clock: StreamClock, live: bool) -> None:
        self.outbox: Outbox[Waiting] = Outbox(list(cameras), hurries=live)
        self.inbox = Inbox(live)
        self.sets: deque[SurroundSet] = deque(maxlen=MAX_UNREAD_SETS)
        self.slots: SharedSlots | None = None
        self.changed = Signal()
        self.ended = False
        self.error: ClientError | None = None
        self._address = address
        self._cameras = cameras
        self._clock = clock
        self._finishing = False
        self._leaving: str | None = None
        self._piece_bytes = 0
        self._probe_due = False
        self._to_send = Signal()
        self._call: FrameCall | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._asking: asyncio.Task[None] | None = None

    def start(self, call: FrameCall, opened: Opened, slots: SharedSlots | None) -> None:
        """Begin, on a call whose stream was opened."""
        self._call, self._piece_bytes = call, opened.piece_bytes
        if slots is not None:
            self.slots, self.outbox.most_in_flight = slots, slots.in_flight
        self.inbox.same_clock = opened.same_clock
        for camera_id in self._cameras:
            self.outbox.grant(camera_id, opened.credits)
        self._tasks = [asyncio.create_task(self._read(call)), asyncio.create_task(self._write(call))]
        if not opened.same_clock:
            self._asking = asyncio.create_task(self._ask_the_time())

    def put(self, waiting: Waiting) -> None:
        """Let a frame wait for its turn, in the place of the one of its camera that waits, if any."""
        size_bytes = len(waiting.pixels) if self.slots is None else 0
        replaced = self.outbox.put(waiting.frame.camera_id, waiting, size_bytes, time.monotonic_ns())
        if replaced is not None:
            self.give_back(replaced.frame.camera_id, replaced.slot)
        self._to_send.wake()

    def has_left(self, camera_id: str) -> bool:
        """Whether no frame of a camera waits or is being handed to gRPC."""
        return self.outbox.is_free(camera_id) and self._leaving != camera_id

    def give_back(self, camera_id: str, slot: Slot | None) -> None:
        """A slot whose frame will not be sent."""
        if self.slots is not None and slot is not None:
            self.slots.give_back(camera_id, slot)

    def finish(self) -> None:
        """Close this side once everything that waits has left."""
        self._finishing = True
        self._to_send.wake()

    @property
    def finishing(self) -> bool:
        """Whether no more frames are taken."""
        return self._finishing or self.ended

    def end(self, error: ClientError | None) -> None:
        """Nothing more will come; the first reason counts."""
        if not self.ended:
            self.ended, self.error = True, error
        self._to_send.wake()
        self.changed.wake()

    async def close(self, error: ClientError) -> None:
        """End now, and wait until gRPC has let go."""
        self.end(error)
        if self._asking is not None:
            self._asking.cancel()
        if self._call is not None:
            await self._call.ended()
        if self._tasks:
            # gRPC keeps the memory of a read or write that is cancelled; with their call, they end by themselves.
            _, left = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in left:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.slots is not None:
            self.slots.close()

    async def _write(self, call: FrameCall) -> None:
        """Hand frames to gRPC as credits allow, one at a time."""
        try:
            while not self.ended:
                if self._probe_due:
                    self._probe_due = False
                    probe = stream_pb2.ClockProbe(client_time_ns=self._clock.now_ns())
                    await call.write(stream_pb2.StreamFramesRequest(clock_probe=probe).SerializeToString())
                elif (taken := self.outbox.take()) is not None:
                    self._leaving = taken[0]
                    for message in self._messages(*taken):
                        await call.write(message)
                    self._leaving = None
                    self.changed.wake()
                elif self._finishing and self.outbox.is_empty():
                    await call.done_writing()
                    return
                else:
                    await self._to_send.wait()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # when the call fails, the reader sees why
        except Exception as error:  # no frame leaves any more: nobody may wait for its answer
            self.end(ClientError(f"a frame cannot be sent: {type(error).__name__}: {error}"))
            call.cancel()

    def _messages(self, camera_id: str, waiting: Waiting, dropped: int) -> Iterator[bytes]:
        """A frame on the wire; from the first message on it is in flight."""
        camera, sequence = self._cameras[camera_id], waiting.sequence
        header = frame_header(camera, waiting.frame, sequence, waiting.capture_time_ns, dropped)
        header.client_send_time_ns = self._clock.now_ns()
        self.inbox.expect(camera_id, sequence, Sent(waiting.frame, waiting.capture_time_ns, header.client_send_time_ns))
        request = stream_pb2.StreamFramesRequest(frame=header)
        if self.slots is None:
            yield from wire.pieces(request, waiting.pixels, self._piece_bytes)
        else:
            request.slot.CopyFrom(self.slots.send(camera_id, sequence, waiting.pixels, waiting.slot))
            yield request.SerializeToString()

    async def _read(self, call: FrameCall) -> None:
        """Take in everything the server says, at once: credits must not wait for the user."""
        try:
            while (message := await call.read()) is not None:
                self._take_in(parse_response(message), self._clock.now_ns())
                await asyncio.sleep(0)  # whoever waits for this goes on before the next read is begun
            self.end(None if self._finishing else await loss(call, self._address, self.inbox.in_flight))
        except grpc.aio.AioRpcError:
            self.end(await loss(call, self._address, self.inbox.in_flight))
        except ClientError as error:
            self.end(error)
        finally:
            call.cancel()

    def _take_in(self, response: stream_pb2.StreamFramesResponse, now_ns: int) -> None:
        for credit in response.credits:
            self.outbox.grant(credit.camera_id, credit.frames)
        kind = response.WhichOneof("message")
        if kind == "result":
            self.inbox.take_result(response.result, now_ns)
            self.outbox.counts[response.result.camera_id].answered += 1
            if self.slots is not None:
                self.slots.answered(response.result.camera_id, response.result.sequence)
        elif kind == "credit":
            self.outbox.grant(response.credit.camera_id, response.credit.frames)
        elif kind == "set":
            self.sets.append(set_from_proto(response.set))
        elif kind == "clock_reply":
            self.inbox.take_time(response.clock_reply, now_ns)
        else:
            raise ProtocolViolation(f"the server sent {kind or 'an empty message'} on an open stream")
        self.changed.wake()
        if not self.outbox.is_empty():
            self._to_send.wake()

    async def _ask_the_time(self) -> None:
        asked = 0
        while not self.ended:
            self._probe_due = True
            self._to_send.wake()
            asked += 1
            await asyncio.sleep(PROBE_SECONDS if asked > 8 else PROBE_SECONDS / 10)
