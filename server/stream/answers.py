"""Results on the wire: everything but the time is serialized by whoever did the work, the time is appended last.

Fields of a protobuf message may come in any order and in pieces, so a `Result` is `body + tail`. The event loop so
pays for the tail alone, however large the tensors of the body are.

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from engine.postprocess import Detections
from protos.monocoque.v1 import result_pb2 as pb
from protos.monocoque.v1.stream_pb2 import StreamFramesResponse, WatchResultsResponse
from server.frames import Answer, Frame
from server.host.process_memory import ProcessMemory
from server.observe.ledger import STAGE_OF_BOUNDARY

_RESPONSE_FIELD = StreamFramesResponse.RESULT_FIELD_NUMBER
_WATCH_FIELD = WatchResultsResponse.RESULT_FIELD_NUMBER
_LEDGER_FIELDS = {stage: f"{stage}_ns" for stage in ("transport", *STAGE_OF_BOUNDARY.values(), "answer", "total")}
STATUS_NUMBERS = {name.removeprefix("STATUS_").lower(): value for name, value in pb.Status.items()}


@dataclass(frozen=True)
class EngineFacts:
    """What every result says of the engine.

    Attributes:
        digest: SHA-256 of the bundle's manifest.
        degraded: Why it is not the engine that was asked for; empty when it is.
        memory_bytes: Its memory by kind.
        labels: Labels of detections by index.
        schema: Changes with its labels and outputs.
    """

    digest: str
    degraded: str = ""
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    schema: str = ""


class AnswerWriter:
    """Writes results.

    Args:
        engine: What they say of the engine.
        process: The server's own memory.
    """

    def __init__(self, engine: EngineFacts, process: ProcessMemory) -> None:
        self._process = process
        self.serve(engine)

    def serve(self, engine: EngineFacts) -> None:
        """Say something else of the engine from now on: it was swapped."""
        self._engine = engine
        named = pb.Result(degraded=engine.degraded, engine_digest=engine.digest)
        self._named = named.SerializeToString()
        """What is the same in every result is serialized once."""
        named.memory.engine_bytes.update(engine.memory_bytes)
        self._described = named.SerializeToString()

    def without_numbers(self, frame: Frame, status: str, reason: str) -> Answer:
        """The answer to a frame that was not computed."""
        result = pb.Result(
            camera_id=frame.header.camera_id,
            sequence=frame.header.sequence,
            capture_time_ns=frame.header.capture_time_ns,
            status=STATUS_NUMBERS[status],
            reason=reason,
            memory=pb.Memory(frame_bytes=frame.frame_bytes),
        )
        return Answer(frame, status, self._named + result.SerializeToString(), self._engine.schema)

    def computed(
        self,
        frame: Frame,
        detections: Detections | None,
        tensors: Sequence[pb.Tensor],
        invalid: str,
        batch_size: int,
    ) -> Answer:
        """The answer to a frame that was computed.

        Args:
            frame: The frame.
            detections: Its objects, for an engine that has them.
            tensors: Its outputs, for one that has not, and the dense ones that were asked for.
            invalid: Why the numbers may not be used; empty when they may.
            batch_size: Frames that were computed with it, itself included.
        """
        result = pb.Result(
            camera_id=frame.header.camera_id,
            sequence=frame.header.sequence,
            capture_time_ns=frame.header.capture_time_ns,
            status=pb.STATUS_OK,
            valid=not invalid,
            reason=invalid,
            batch_size=batch_size,
            tensors=tensors,
            memory=pb.Memory(
                frame_bytes=frame.frame_bytes,
                decoded_bytes=frame.decoded_bytes,
                process_resident_bytes=self._process.resident_bytes(),
            ),
        )
        if detections is not None:
            self._fill(result, detections)
        return Answer(frame, "ok", self._described + result.SerializeToString(), self._engine.schema, detections)

    def _fill(self, result: pb.Result, found: Detections) -> None:
        distances = [None] * len(found.scores) if found.distances is None else found.distances.tolist()
        rows = zip(found.classes.tolist(), found.scores.tolist(), found.boxes.tolist(), distances, strict=True)
        for index, score, (x_min, y_min, x_max, y_max), distance in rows:
            label = self._engine.labels[index] if 0 <= index < len(self._engine.labels) else ""
            result.detections.add(
                class_index=max(0, index),
                label=label,
                score=score,
                x_min=x_min,
                y_min=y_min,
                x_max=x_max,
                y_max=y_max,
                distance_m=distance,
            )


class Finished(NamedTuple):
    """An answer with its time.

    Attributes:
        result: The whole `Result` on the wire.
        answered: When it was handed to gRPC.
        stages: Nanoseconds per stage.
        age_ns: The frame's age.
    """

    result: bytes
    answered: int
    stages: Mapping[str, int]
    age_ns: int


def finish(answer: Answer, answered: int, set_number: int = 0, schema_changed: bool = False) -> Finished:
    """Append the time to an answer.

    Args:
        answer: The answer.
        answered: When it is handed to gRPC.
        set_number: Its set's; 0 for a frame of no set.
        schema_changed: Whether the engine now has other labels or outputs than the stream was told.
    """
    frame = answer.frame
    stages = frame.ledger.stages(answered)
    tail = pb.Result(set_number=set_number, schema_changed=schema_changed)
    ledger, age = tail.ledger, tail.age  # filled in place: built apart, they would be copied
    ledger.received_at_ns, ledger.answered_at_ns = frame.ledger.received, answered
    if frame.ledger.sent is not None:
        ledger.transport_uncertainty_ns = frame.ledger.uncertainty_ns
    for stage, duration_ns in stages.items():
        setattr(ledger, _LEDGER_FIELDS[stage], duration_ns)
    age_ns = answered - (frame.ledger.received if frame.captured is None else frame.captured)
    age.age_ns, age.uncertainty_ns, age.lower_bound = age_ns, frame.uncertainty_ns, frame.captured is None
    return Finished(answer.body + tail.SerializeToString(), answered, stages, age_ns)


def failure(error: Exception) -> str:
    """The reason of a frame that a bug of ours cost."""
    return f"the server failed to compute this frame: {type(error).__name__}: {error}"


def as_response(result: bytes) -> bytes:
    """A `StreamFramesResponse` around a result on the wire."""
    return _embed(_RESPONSE_FIELD, result)


def as_watched(head: WatchResultsResponse, result: bytes) -> bytes:
    """A `WatchResultsResponse` around a result on the wire.

    Args:
        head: Everything but the result.
        result: The result.
    """
    return head.SerializeToString() + _embed(_WATCH_FIELD, result)


def _embed(field_number: int, message: bytes) -> bytes:
    """A length-delimited field."""
    length, remaining = bytearray(), len(message)
    while remaining > 0x7F:
        length.append(remaining & 0x7F | 0x80)
        remaining >>= 7
    return b"".join((bytes((field_number << 3 | 2,)), bytes(length), bytes((remaining,)), message))
