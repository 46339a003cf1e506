"""What comes back for the frames of several cameras that were taken at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from client.results import STATUSES, Status
from protos.monocoque.v1 import result_pb2

SetCause = Literal["complete", "deadline", "next", "ended"]
"""Why a set was not waited for any longer; `protos/monocoque/v1/result.proto` defines each."""
_CAUSES: dict[int, SetCause] = {
    result_pb2.SET_CAUSE_COMPLETE: "complete",
    result_pb2.SET_CAUSE_DEADLINE: "deadline",
    result_pb2.SET_CAUSE_NEXT: "next",
    result_pb2.SET_CAUSE_ENDED: "ended",
}
MAX_UNREAD_SETS = 1000
"""Sets that wait to be read; the oldest is forgotten where more do."""


@dataclass(frozen=True)
class SetFrame:
    """One frame of a set.

    Attributes:
        camera_id: Its camera.
        sequence: Its number.
        offset_ns: How long after the set's first frame it was captured.
        status: What became of it.
    """

    camera_id: str
    sequence: int
    offset_ns: int
    status: Status


@dataclass(frozen=True)
class VehicleObject:
    """One object around the vehicle: x forward, y to the left, from the rear axle.

    Attributes:
        class_index: Index into the engine's labels.
        label: The label itself.
        score: The best camera's, 0 to 1.
        x_m: Metres forward.
        y_m: Metres to the left.
        distance_m: Metres from the camera that sees it best.
        bearing_rad: Direction in which that camera sees it, to the left positive.
        camera_ids: The cameras that see it, the best first.
    """

    class_index: int
    label: str
    score: float
    x_m: float
    y_m: float
    distance_m: float
    bearing_rad: float
    camera_ids: tuple[str, ...]


@dataclass(frozen=True)
class SurroundSet:
    """The frames of one moment, and everything they show.

    Attributes:
        number: Counts up from 1; `Result.set_number` of its frames.
        frames: Its frames, in the order of the stream's cameras.
        missing: Cameras without a frame in it.
        spread_ns: Time between its first and its last capture.
        cause: Why it was not waited for any longer.
        gathered_ns: How long its first frame waited for the others.
        objects: What its cameras see, in the vehicle frame, what several see once; the best first.
        unplaced: Cameras whose detections could not be placed.
    """

    number: int
    frames: tuple[SetFrame, ...]
    missing: tuple[str, ...]
    spread_ns: int
    cause: SetCause
    gathered_ns: int
    objects: tuple[VehicleObject, ...]
    unplaced: tuple[str, ...]


def set_from_proto(message: result_pb2.SurroundSet) -> SurroundSet:
    """The typed set."""
    return SurroundSet(
        number=message.number,
        frames=tuple(
            SetFrame(one.camera_id, one.sequence, one.offset_ns, STATUSES[one.status - 1]) for one in message.frames
        ),
        missing=tuple(message.missing),
        spread_ns=message.spread_ns,
        cause=_CAUSES.get(message.cause, "next"),
        gathered_ns=message.gathered_ns,
        objects=tuple(
            VehicleObject(
                class_index=one.class_index,
                label=one.label,
                score=one.score,
                x_m=one.x_m,
                y_m=one.y_m,
                distance_m=one.distance_m,
                bearing_rad=one.bearing_rad,
                camera_ids=tuple(one.camera_ids),
            )
            for one in message.objects
        ),
        unplaced=tuple(message.unplaced),
    )
