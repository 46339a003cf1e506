"""What comes back for a frame, typed, with the client's own stages added to the server's ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from client.clock import Offset
from client.errors import ProtocolViolation
from client.frames import Frame
from protos.monocoque.v1 import result_pb2

Status = Literal["ok", "stale", "late", "refused", "waiting_for_keyframe", "torn", "failed"]
"""What became of a frame; `protos/monocoque/v1/result.proto` defines each."""

STATUSES: tuple[Status, ...] = get_args(Status)
"""All of them, in the order of the proto file."""

STAGES: tuple[str, ...] = (
    "transport", "queue", "decode", "batch", "preprocess", "launch", "inference", "postprocess", "answer", "returned",
)  # fmt: skip
"""Stages between the client's send and the result's return, in order; each is a `*_ns` of `Ledger`."""

_SERVERS_STAGES: tuple[Any, ...] = tuple(f"{stage}_ns" for stage in STAGES[:-1])
"""Fields of the message; the last stage is the client's own. `Any`: `HasField` is typed by literals."""

MOST_AHEAD_NS = 1_000_000_000
LONGEST_HELD_NS = 24 * 3600 * 1_000_000_000
"""A capture time further from its send is of another clock than the stream's, or of a recording."""


@dataclass(frozen=True)
class Detection:
    """One object.

    Attributes:
        class_index: Index into the engine's labels.
        label: The label itself.
        score: 0 to 1.
        x_min: Left edge, pixels of the frame.
        y_min: Upper edge.
        x_max: Right edge.
        y_max: Lower edge.
        distance_m: Metres along the camera's optical axis; None where it is not known.
    """

    class_index: int
    label: str
    score: float
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    distance_m: float | None = None


@dataclass(frozen=True)
class Ledger:
    """Where a frame's time went, in nanoseconds; None: a stage it did not reach, or that clocks cannot tell.

    Attributes:
        held_ns: Capture to send: waiting for credit in this client. Not part of `end_to_end_ns`; None where the capture
            time is not of the stream's clock.
        transport_ns: Client's send to server's receipt.
        queue_ns: Waiting in its camera's slot.
        decode_ns: Pixel bytes to an image.
        batch_ns: Waiting for the other frames of its batch.
        preprocess_ns: Image to network input.
        launch_ns: Waiting for the engine with the network input ready.
        inference_ns: Engine.
        postprocess_ns: Outputs to detections or tensors.
        answer_ns: Putting the answer together and handing it to gRPC.
        returned_ns: The answer's way back to this client.
        total_ns: The server's sum: from the send, or from receipt where it cannot tell, to the answer.
        end_to_end_ns: Send to return, by this client's clock alone; None for a watched result.
        uncertainty_ns: Error bound of `transport_ns` and `returned_ns`.
    """

    held_ns: int | None = None
    transport_ns: int | None = None
    queue_ns: int | None = None
    decode_ns: int | None = None
    batch_ns: int | None = None
    preprocess_ns: int | None = None
    launch_ns: int | None = None
    inference_ns: int | None = None
    postprocess_ns: int | None = None
    answer_ns: int | None = None
    returned_ns: int | None = None
    total_ns: int = 0
    end_to_end_ns: int | None = None
    uncertainty_ns: int = 0

    def stages(self) -> dict[str, int]:
        """The stages that are set, in order; they add up to `end_to_end_ns` where transport and return are known."""
        values = ((stage, getattr(self, f"{stage}_ns")) for stage in STAGES)
        return {stage: value for stage, value in values if value is not None}


@dataclass(frozen=True)
class Age:
    """How old a frame was.

    Attributes:
        answered_ns: Capture to answer, by the server; since receipt where `lower_bound`.
        returned_ns: Capture to the result's return, by this client's clock alone; None for a watched result, and
            where the capture time is not of the stream's clock: over a second after the send, or a day before it.
        uncertainty_ns: Error bound of `answered_ns`.
        lower_bound: The clocks cannot be compared: the true age at the answer is at least `answered_ns`.
    """

    answered_ns: int
    returned_ns: int | None
    uncertainty_ns: int
    lower_bound: bool


@dataclass(frozen=True)
class Memory:
    """Bytes that a frame and its engine held; `engine_bytes` by kind."""

    frame_bytes: int
    decoded_bytes: int
    engine_bytes: Mapping[str, int]
    process_resident_bytes: int


@dataclass(frozen=True)
class Result:
    """The answer to one frame.

    Attributes:
        camera_id: Camera of the frame.
        sequence: Its number, counted per camera from 0; frames dropped by the client count too.
        capture_time_ns: Its capture time, in the stream's clock.
        status: What became of it.
        reason: Why, where `status` is not `ok` or `valid` is false.
        valid: Whether the numbers may be used.
        degraded: Why the engine is not the one that was asked for; empty when it is.
        detections: Objects, best first.
        tensors: Other outputs by name.
        ledger: Where its time went.
        age: How old it was.
        memory: What it held.
        engine_digest: SHA-256 of the bundle's manifest.
        batch_size: Frames in its batch.
        set_number: The set it belongs to; 0 for a frame of no set.
        schema_changed: The engine was swapped since the stream was opened, for one with other labels or outputs.
        frame: The frame as it was submitted; None for a watched result.
    """

    camera_id: str
    sequence: int
    capture_time_ns: int
    status: Status
    reason: str
    valid: bool
    degraded: str
    detections: tuple[Detection, ...]
    tensors: Mapping[str, NDArray[Any]]
    ledger: Ledger
    age: Age
    memory: Memory
    engine_digest: str
    batch_size: int
    set_number: int = 0
    schema_changed: bool = False
    frame: Frame | None = field(default=None, compare=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether it was computed and its numbers may be used."""
        return self.status == "ok" and self.valid

    def boxes(self) -> NDArray[np.float32]:
        """Boxes of the detections, (N, 4): x_min, y_min, x_max, y_max in pixels of the frame."""
        rows = [(d.x_min, d.y_min, d.x_max, d.y_max) for d in self.detections]
        return np.array(rows, np.float32).reshape(-1, 4)


@dataclass(frozen=True)
class Sent:
    """What the client remembers of a frame in flight; times in its own clock."""

    frame: Frame
    capture_time_ns: int
    send_time_ns: int


def result_from_proto(
    message: result_pb2.Result, sent: Sent | None = None, returned_at_ns: int = 0, offset: Offset | None = None
) -> Result:
    """The typed result.

    Args:
        message: As it came.
        sent: The frame it answers; None for a watched result.
        returned_at_ns: When it came, in the clock of `sent`.
        offset: Server's clock minus the client's, where known.

    Raises:
        ProtocolViolation: It has no status, or a tensor whose bytes are not its shape.
    """
    where = f"result of frame {message.sequence} of {message.camera_id}"
    if not 0 < message.status <= len(STATUSES):
        raise ProtocolViolation(f"{where} has status {message.status}; is the server newer than this client?")
    return Result(
        camera_id=message.camera_id,
        sequence=message.sequence,
        capture_time_ns=message.capture_time_ns,
        status=STATUSES[message.status - 1],
        reason=message.reason,
        valid=message.valid,
        degraded=message.degraded,
        detections=tuple(_detection(item) for item in message.detections),
        tensors={item.name: _tensor(item, where) for item in message.tensors},
        ledger=_ledger(message.ledger, sent, returned_at_ns, offset),
        age=Age(
            answered_ns=message.age.age_ns,
            returned_ns=None if sent is None or _held_ns(sent) is None else returned_at_ns - sent.capture_time_ns,
            uncertainty_ns=message.age.uncertainty_ns,
            lower_bound=message.age.lower_bound,
        ),
        memory=Memory(
            frame_bytes=message.memory.frame_bytes,
            decoded_bytes=message.memory.decoded_bytes,
            engine_bytes=dict(message.memory.engine_bytes),
            process_resident_bytes=message.memory.process_resident_bytes,
        ),
        engine_digest=message.engine_digest,
        set_number=message.set_number,
        schema_changed=message.schema_changed,
        batch_size=message.batch_size,
        frame=None if sent is None else sent.frame,
    )


def _detection(message: result_pb2.Detection) -> Detection:
    return Detection(
        class_index=message.class_index,
        label=message.label,
        score=message.score,
        x_min=message.x_min,
        y_min=message.y_min,
        x_max=message.x_max,
        y_max=message.y_max,
        distance_m=message.distance_m if message.HasField("distance_m") else None,
    )


def _tensor(message: result_pb2.Tensor, where: str) -> NDArray[Any]:
    try:
        dtype = np.dtype(message.dtype).newbyteorder("<")
        return np.frombuffer(message.data, dtype).reshape(tuple(message.shape))
    except (TypeError, ValueError) as error:
        raise ProtocolViolation(
            f"{where}: tensor {message.name!r} has {len(message.data)} bytes, dtype {message.dtype!r}, "
            f"shape {list(message.shape)}: {error}"
        ) from error


def _held_ns(sent: Sent) -> int | None:
    held_ns = sent.send_time_ns - sent.capture_time_ns
    return held_ns if -MOST_AHEAD_NS <= held_ns <= LONGEST_HELD_NS else None


def _ledger(message: result_pb2.Ledger, sent: Sent | None, returned_at_ns: int, offset: Offset | None) -> Ledger:
    stages = {name: getattr(message, name) if message.HasField(name) else None for name in _SERVERS_STAGES}
    if sent is None:
        return Ledger(**stages, total_ns=message.total_ns, uncertainty_ns=message.transport_uncertainty_ns)
    end_to_end_ns = returned_at_ns - sent.send_time_ns
    uncertainty_ns = message.transport_uncertainty_ns
    returned_ns: int | None = None
    if stages["transport_ns"] is not None:
        returned_ns = end_to_end_ns - message.total_ns
    elif offset is not None and message.received_at_ns and message.answered_at_ns:
        stages["transport_ns"] = message.received_at_ns - offset.offset_ns - sent.send_time_ns
        returned_ns = returned_at_ns + offset.offset_ns - message.answered_at_ns
        uncertainty_ns = offset.uncertainty_ns
    return Ledger(
        **stages,
        held_ns=_held_ns(sent),
        returned_ns=returned_ns,
        total_ns=message.total_ns,
        end_to_end_ns=end_to_end_ns,
        uncertainty_ns=uncertainty_ns,
    )
