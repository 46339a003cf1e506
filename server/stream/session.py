"""One open stream: its cameras, the frames it sent, and the answers it is owed. Lives on the event loop."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence

from protos import wire
from protos.monocoque.v1 import camera_pb2
from protos.monocoque.v1 import stream_pb2 as pb
from server.engines.mailbox import Mailbox, SetKey
from server.errors import OutOfOrder
from server.frames import TORN, Answer, CameraKey, Frame, OpenCamera
from server.observe.metrics import Metrics
from server.shared_memory.region import BorrowedSlot, StreamRegion
from server.stream.answers import AnswerWriter, Finished, as_response, failure, finish
from server.stream.arrivals import Arrivals
from server.stream.clock import ClientClock, HostClock, declared
from server.stream.complaints import WRONG, Complaints
from server.stream.layout import RAW_ENCODINGS, VIDEO_ENCODINGS, check_frame
from server.stream.opening import SET_TOLERANCE_NS, credits_of, is_replay
from server.stream.outbox import Outbox
from server.stream.pieces import Pieces
from server.stream.set_answers import SetAnswers
from server.stream.video_queue import MAX_WAITING, VideoQueue
from server.stream.watch import Audience

log = logging.getLogger("monocoque.stream")

REPLACED = "replaced by a newer frame before work on it began"
ENDING = "the stream is ending"
_numbers = itertools.count(1)


class Session:
    """A stream from its `Open` to its end.

    Args:
        request: The `Open`, checked.
        max_frame_bytes: Largest frame accepted.
        host: Our clocks.
        mailbox: Where frames wait.
        writer: Writes answers to frames that are not computed.
        audience: Who else is told.
        metrics: Where everything is counted.
        labels: Labels of detections by index.
        schema: Of the engine that the stream was opened with.
    """

    def __init__(
        self,
        request: pb.Open,
        max_frame_bytes: int,
        host: HostClock,
        mailbox: Mailbox,
        writer: AnswerWriter,
        audience: Audience,
        metrics: Metrics,
        labels: Sequence[str] = (),
        schema: str = "",
    ) -> None:
        self.id = f"stream-{next(_numbers)}"
        self.outbox = Outbox(joins=request.credits_with_results)
        self.replays = is_replay(request)
        self.credits = credits_of(request)
        self.clock: ClientClock = declared(request.clock, host)
        self.unanswered = 0
        self.region: StreamRegion | None = None
        """Where its frames lie; set before the first, for a client that asked for shared memory."""
        self.superseded: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done where another stream has taken one of its cameras over: says which."""
        self.pins_version = False
        """Whether it asked for this version of its engine, so that no other may take its place."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._room = asyncio.Event()
        self._max_frame_bytes = max_frame_bytes
        self._host = host
        self.mailbox = mailbox
        self._writer = writer
        self._schema = schema
        self._audience = audience
        self._metrics = metrics
        self._complaints = Complaints(self.id)
        self._arrivals = Arrivals(self.clock, host, request.max_age_ns, metrics, self._complaints)
        self._pieces = Pieces(max_frame_bytes)
        self._closed = False
        self._refusing = ""
        self.cameras = {
            spec.id: OpenCamera(
                key=CameraKey(self.id, spec.id),
                spec=spec,
                owner=self,
                tensors=tuple(request.tensors),
                metrics=metrics.camera(spec.id),
            )
            for spec in request.cameras
        }
        self._sets = SetAnswers({spec.id: spec for spec in request.cameras}, labels, self._send_set)
        self._join(request)
        self._video = {
            camera_id: VideoQueue(camera.spec, self.credits, _VideoCamera(self, camera))
            for camera_id, camera in self.cameras.items()
            if camera.spec.encoding in VIDEO_ENCODINGS
        }

    def _join(self, request: pb.Open) -> None:
        """Let the scheduler know of the cameras: each for itself, or all of them as a set."""
        if request.HasField("sets"):
            self.mailbox.add_set(
                SetKey(self.id),
                [camera.key for camera in self.cameras.values()],
                tolerance_ns=request.sets.tolerance_ns or SET_TOLERANCE_NS,
                replaces=not self.replays,
                depth=self.credits,
                priority=request.priority,
            )
            return
        for camera in self.cameras.values():
            self.mailbox.add_camera(
                camera.key,
                replaces=not self.replays,
                depth=self.credits,
                priority=request.priority + camera.spec.priority,
                weight=camera.spec.weight or 1,
            )

    async def receive(self, message: bytes) -> None:
        """Take one message of the client. In REPLAY, waits until its frame has room: that holds the client back.

        Raises:
            DecodeError: It is no message of ours.
            RequestInvalid: It holds nothing that is known, or pieces of a frame that do not fit together.
            LimitReached: It begins a frame that is too large.
            OutOfOrder: It is a second `Open`.
        """
        received = self._host.monotonic_ns()
        request, pixels = wire.split(message)
        kind = request.WhichOneof("message")
        if kind == "frame":
            self._pieces.check_none()
            if request.frame.size_bytes > len(pixels):
                self._pieces.begin(request, pixels)
            else:
                await self._receive_frame(request, pixels, received)
        elif kind == "clock_probe":
            reply = pb.ClockReply(client_time_ns=request.clock_probe.client_time_ns, server_receive_time_ns=received)
            reply.server_send_time_ns = self._host.monotonic_ns()
            self.outbox.put(pb.StreamFramesResponse(clock_reply=reply).SerializeToString())
        elif kind == "open":
            raise OutOfOrder(f"{self.id} is open already", remedy="open another stream for other cameras")
        elif (whole := self._pieces.add(pixels)) is not None:
            await self._receive_frame(whole.request, whole.pixels, received, whole.give_back)

    async def _receive_frame(
        self,
        request: pb.StreamFramesRequest,
        pixels: memoryview,
        received: int,
        give_back: Callable[[], None] | None = None,
    ) -> None:
        header = request.frame
        camera = self.cameras.get(header.camera_id)
        slot, misplaced = self._borrow(request, camera)
        pixels = pixels if slot is None else slot.pixels
        frame = self._arrivals.frame(camera or self._stranger(), header, pixels, received)
        frame.shared, frame.give_back = slot, give_back
        self.unanswered += 1
        self._idle.clear()
        if camera is None:
            known = ", ".join(self.cameras)
            fault = f"camera {header.camera_id[:80]!r} is not one that this stream opened: {known}"
            self.deliver(self._writer.without_numbers(frame, "refused", fault))
            return
        if header.client_dropped:
            camera.metrics.client_dropped.inc(header.client_dropped)
        if slot is not None and header.encoding not in RAW_ENCODINGS:
            # What is parsed must not change between a check and its use; raw pixels may, they are only looked at.
            frame.pixels = memoryview(bytes(pixels))
        refused = (
            self._refusing
            or misplaced
            or self._check_order(camera, header.sequence)
            or check_frame(header, frame.pixels, camera.spec, self._max_frame_bytes)
        )
        torn = frame.torn
        if torn or refused:
            status, reason = ("torn", TORN) if torn else ("refused", refused or "")
            self.outbox.add_credit(header.camera_id)
            self.deliver(self._writer.without_numbers(frame, status, reason))
            return
        if (video := self._video.get(header.camera_id)) is not None:
            if video.put(frame):
                camera.last_sequence = header.sequence
            else:
                reason = f"{MAX_WAITING} access units wait to be decoded; send one per credit"
                self.deliver(self._writer.without_numbers(frame, "refused", reason))
            return
        camera.last_sequence = header.sequence
        if self.replays:
            await self._room_for(frame)
            if self._refusing:
                self.deliver(self._writer.without_numbers(frame, "refused", self._refusing))
                return
            self.offer(frame)
            return
        self.offer(frame)  # first: the engine's thread wakes up meanwhile
        self.outbox.add_credit(header.camera_id)

    def offer(self, frame: Frame) -> None:
        """Let a frame wait for the engine, in the place of an older one where only the freshest counts."""
        self._replace(self.mailbox.offer(frame))

    def _replace(self, frames: Sequence[Frame]) -> None:
        for frame in frames:
            frame.ledger.selected = self._host.monotonic_ns()
            self.deliver(self._writer.without_numbers(frame, "stale", REPLACED))

    def answer(self, frame: Frame, status: str, reason: str) -> None:
        """Answer a frame that is not computed."""
        self.deliver(self._writer.without_numbers(frame, status, reason))

    def _borrow(self, request: pb.StreamFramesRequest, camera: OpenCamera | None) -> tuple[BorrowedSlot | None, str]:
        """The slot that a frame lies in, if any, and what is wrong with it, if anything is."""
        if self.region is None:
            if request.HasField("slot"):
                return None, "this stream was opened without shared memory; set open.shared_memory to use slots"
            return None, ""
        if camera is None:
            return None, ""
        if not request.HasField("slot"):
            return None, "this stream was opened with shared memory; write the pixels to a slot and send its handle"
        slot = self.region.borrow(request.slot, camera.key.camera_id)
        return (None, slot) if isinstance(slot, str) else (slot, "")

    async def _room_for(self, frame: Frame) -> None:
        try:
            while not self._refusing and not self.has_room(frame.camera.key):
                self._room.clear()
                await self._room.wait()
        except asyncio.CancelledError:  # the stream ends, and the frame was never let in
            self.deliver(self._writer.without_numbers(frame, "refused", ENDING))
            raise

    def has_room(self, key: CameraKey) -> bool:
        """Whether a camera's frame may be offered. A replay waits for an engine that is being opened again."""
        return not (self.replays and self.mailbox.held) and self.mailbox.has_room(key)

    def go_on(self) -> None:
        """Offer what waited for the engine."""
        self._room.set()
        for video in self._video.values():
            video.pump()

    def _stranger(self) -> OpenCamera:
        """A camera that the stream did not open; all of them are counted as one."""
        return OpenCamera(CameraKey(self.id, ""), camera_pb2.Camera(), self, (), self._metrics.other_camera())

    @staticmethod
    def _check_order(camera: OpenCamera, sequence: int) -> str | None:
        if camera.last_sequence is None or sequence > camera.last_sequence:
            return None
        return f"sequence {sequence} does not follow {camera.last_sequence}; it must count up"

    def left_slot(self, frame: Frame) -> None:
        """A frame was taken from its slot: in REPLAY, there is room for another."""
        camera_id = frame.camera.key.camera_id
        if self._closed:
            return
        if (video := self._video.get(camera_id)) is not None:
            video.pump()
        else:
            self.outbox.add_credit(camera_id)
            self._room.set()

    def deliver(self, answer: Answer) -> None:
        """Answer a frame; one of a set waits for the answers of the others."""
        if answer.frame.frame_set is None:
            self._deliver(answer)
        else:
            self._sets.add(answer.frame.frame_set, answer)

    def _send_set(self, answers: Sequence[Answer], number: int, message: bytes | None) -> None:
        for answer in answers:
            self._deliver(answer, number)
        if message is not None and not self._closed:
            self.outbox.put(message)

    def _deliver(self, answer: Answer, set_number: int = 0) -> None:
        """Answer a frame; where that fails, which only a bug of ours can cause, its one answer is FAILED."""
        try:
            self._send(answer, set_number)
        except Exception as error:
            log.exception("the answer to a frame failed")
            if not answer.frame.answered:
                self._send(self._writer.without_numbers(answer.frame, "failed", failure(error)), set_number)

    def _send(self, answer: Answer, set_number: int) -> None:
        """Answer a frame, and have it counted. Nothing has changed where the first line raises."""
        frame = answer.frame
        finished = finish(answer, self._host.monotonic_ns(), set_number, answer.schema != self._schema)
        frame.answered = True
        frame.release()
        if frame.shared is not None:
            frame.shared.give_back()
        self.unanswered -= 1
        if self.unanswered == 0:
            self._idle.set()
        status = "undelivered" if self._closed else answer.status
        if not self._closed:
            self.outbox.put(as_response(finished.result))
        # After the write, which `put` has just put in line: 30 µs that no client waits for.
        asyncio.get_running_loop().call_soon(self._count, frame, status, finished)

    def _count(self, frame: Frame, status: str, finished: Finished) -> None:
        """Count an answer, and tell whoever watches."""
        metrics = frame.camera.metrics
        metrics.frames[status].inc()
        if status == "ok":
            metrics.observe(finished.stages, finished.age_ns, frame.uncertainty_ns)
        late = frame.deadline_ns is not None and finished.answered > frame.deadline_ns
        if late and status in ("ok", "late", "failed"):
            metrics.deadline_misses.inc()
        if status in WRONG:
            self._complaints.add(frame.camera.key.camera_id, status, finished.result, finished.answered)
        if status not in ("stale", "undelivered"):  # after a stale one, by definition, a newer result follows
            self._audience.publish(frame.camera, finished.result)

    async def answered(self) -> None:
        """Wait until every frame that was received has its answer; no more come."""
        for video in self._video.values():
            video.flush()
        self._replace(self.mailbox.end_set(SetKey(self.id)))
        await self._idle.wait()

    def refuse_waiting(self, reason: str) -> None:
        """Answer every frame that waits or still comes, without computing it."""
        self._refusing = reason
        self._room.set()
        for camera_id, camera in self.cameras.items():
            undecoded = self._video.pop(camera_id).close() if camera_id in self._video else []
            for frame in [*self.mailbox.remove_camera(camera.key), *undecoded]:
                self.deliver(self._writer.without_numbers(frame, "refused", reason))

    def close(self) -> None:
        """End the stream: what waits is dropped, what is computed now will be counted as undelivered."""
        self._closed = True
        self.refuse_waiting(ENDING)
        self._pieces.close()

    @property
    def is_closed(self) -> bool:
        """Whether the stream has ended."""
        return self._closed


class _VideoCamera:
    """A stream, as the video queue of one of its cameras sees it."""

    def __init__(self, session: Session, camera: OpenCamera) -> None:
        self._session = session
        self._camera = camera

    def has_room(self) -> bool:
        return self._session.has_room(self._camera.key)

    def offer(self, frame: Frame) -> None:
        self._session.offer(frame)

    def answer(self, frame: Frame, status: str, reason: str) -> None:
        self._session.answer(frame, status, reason)

    def grant(self, frames: int) -> None:
        for _ in range(frames):
            self._session.outbox.add_credit(self._camera.key.camera_id)
