"""From a client's `Open` to the cameras it may send: everything is checked before the first frame."""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.manifest import Manifest
from protos.monocoque.v1 import stream_pb2 as pb
from server.decode import video
from server.errors import OutOfOrder, RequestInvalid
from server.shared_memory.region import slots_layout
from server.stream.clock import LARGEST_ERROR_NS
from server.stream.layout import VIDEO_ENCODINGS, check_geometry, encoding_name, largest_frame_bytes

CAMERA_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

LIVE_CREDITS = 1
"""Two hide the credit's round trip, but the second frame ages in the transport: 1 gave the lowest age."""
REPLAY_CREDITS = 4
"""Frames of one camera that wait for the engine; enough that it never waits for the network."""
FRAMES_HELD = 2
"""Frames of a camera beyond those that wait: one in the engine, one half received."""
SET_TOLERANCE_NS = 20_000_000
"""Between the captures of one set, where the client does not say: more than the jitter of cameras that are triggered
together, less than the period of any."""
LARGEST_WEIGHT = 1000
LARGEST_TOLERANCE_NS = 1_000_000_000
CLIENT_SLOTS = 2
"""Slots of a camera's shared memory beyond those that the server may hold: one that waits to be sent, one that is
being written."""


@dataclass(frozen=True)
class Limits:
    """What the server accepts.

    Attributes:
        max_width: Columns of a frame.
        max_height: Rows of a frame.
        max_streams: Streams at the same time.
        max_cameras: Cameras of all streams together.
        max_watchers: Subscribers to results.
        memory_budget_bytes: For the frames of all streams together.
    """

    max_width: int
    max_height: int
    max_streams: int
    max_cameras: int
    max_watchers: int
    memory_budget_bytes: int

    @property
    def max_frame_bytes(self) -> int:
        """Bytes of the largest frame."""
        return largest_frame_bytes(self.max_width, self.max_height)


def is_replay(request: pb.Open) -> bool:
    """Whether every frame counts, rather than the freshest."""
    return request.policy == pb.POLICY_REPLAY


def credits_of(request: pb.Open) -> int:
    """Frames of each camera that may be under way."""
    return REPLAY_CREDITS if is_replay(request) else LIVE_CREDITS


def slots_of(request: pb.Open) -> int:
    """Slots of each camera in shared memory, for a stream that asks for it."""
    return credits_of(request) + FRAMES_HELD + CLIENT_SLOTS


def reserved_bytes(request: pb.Open) -> int:
    """Memory that the frames of a stream may take."""
    decoders = sum(
        (video.MAX_REORDERED + 1) * camera.width * camera.height * 3 // 2  # pictures of 8 bits, 4:2:0
        for camera in request.cameras
        if camera.encoding in VIDEO_ENCODINGS
    )
    if request.shared_memory:
        return decoders + slots_layout(request.cameras, slots_of(request))[1]
    per_camera = credits_of(request) + FRAMES_HELD
    return decoders + sum(per_camera * largest_frame_bytes(camera.width, camera.height) for camera in request.cameras)


def check_open(request: pb.Open, manifest: Manifest, limits: Limits) -> None:
    """Check the first message of a stream against the engine and the limits.

    Raises:
        RequestInvalid: A field makes no sense; the message names it and its value.
        OutOfOrder: The engine takes no camera frames.
    """
    if manifest.preprocessing is None:
        raise OutOfOrder(
            f"{manifest.name} takes tensors, not camera frames",
            remedy="build it again with --mean, --std and --color, so that it takes camera frames",
        )
    if len(manifest.inputs) != 1:
        others = [spec.name for spec in manifest.inputs if spec.name != manifest.preprocessing.input]
        raise OutOfOrder(
            f"{manifest.name} needs {', '.join(others)} besides the camera's frame", remedy="serve another bundle"
        )
    if not request.cameras:
        raise RequestInvalid("open.cameras is empty", remedy="name the cameras whose frames follow")
    if request.policy not in pb.Policy.values():
        raise RequestInvalid(f"open.policy is {request.policy}", remedy="use POLICY_LIVE or POLICY_REPLAY")
    if request.clock.error_ns > LARGEST_ERROR_NS:
        raise RequestInvalid(
            f"open.clock.error_ns is {request.clock.error_ns}, at most {LARGEST_ERROR_NS} can be called synchronized",
            remedy="declare CLOCK_KIND_UNKNOWN",
        )
    if request.sets.tolerance_ns > LARGEST_TOLERANCE_NS:
        raise RequestInvalid(
            f"open.sets.tolerance_ns is {request.sets.tolerance_ns}, at most {LARGEST_TOLERANCE_NS} is accepted",
            remedy="give less than half of the cameras' period, or 0 for 20 ms",
        )
    _check_cameras(request, limits)
    _check_tensors(request, manifest)


def _check_cameras(request: pb.Open, limits: Limits) -> None:
    seen: set[str] = set()
    for index, camera in enumerate(request.cameras):
        where = f"open.cameras[{index}]"
        if not CAMERA_ID.fullmatch(camera.id):
            raise RequestInvalid(
                f"{where}.id is {camera.id[:80]!r}", remedy="use 1 to 64 letters, digits, '_', '-' and '.'"
            )
        if camera.id in seen:
            raise RequestInvalid(f"{where}.id {camera.id!r} is there twice", remedy="give each camera its own id")
        seen.add(camera.id)
        if camera.weight > LARGEST_WEIGHT:
            raise RequestInvalid(
                f"{where}.weight is {camera.weight}, at most {LARGEST_WEIGHT} is accepted",
                remedy="give the cameras' shares, for example 2 and 1",
            )
        if fault := check_geometry(camera.encoding, camera.width, camera.height):
            raise RequestInvalid(f"{where} ({camera.id}): {fault}", remedy="correct the camera's size or encoding")
        if camera.encoding in VIDEO_ENCODINGS and (lacking := video.missing()):
            raise OutOfOrder(
                f"{where} ({camera.id}) sends {encoding_name(camera.encoding)}: {lacking}",
                remedy="on the server: pip install 'monocoque[video]'; or send JPEG",
            )
        if camera.width > limits.max_width or camera.height > limits.max_height:
            raise RequestInvalid(
                f"{where} ({camera.id}) is {camera.width}x{camera.height}, "
                f"at most {limits.max_width}x{limits.max_height} is accepted",
                remedy=f"start the server with --max-frame {camera.width}x{camera.height}, or send smaller frames",
            )


def _check_tensors(request: pb.Open, manifest: Manifest) -> None:
    names = [spec.name for spec in manifest.outputs]
    for index, name in enumerate(request.tensors):
        if name not in names:
            raise RequestInvalid(
                f"open.tensors[{index}] is {name[:80]!r}, outputs are {', '.join(names)}",
                remedy="ask for some of those, or for none",
            )
