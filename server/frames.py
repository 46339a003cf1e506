"""A frame while the server has it, and its answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from engine.postprocess import Detections
from protos.monocoque.v1 import camera_pb2
from server.decode import Samples
from server.observe.ledger import Ledger
from server.observe.metrics import CameraMetrics
from server.schedule.sets import FrameSet

TORN = "its slot in shared memory was written to before the answer"
"""Reason of a frame whose pixels are a mix of two."""


class CameraKey(NamedTuple):
    """Names a camera among all streams."""

    stream_id: str
    camera_id: str


class Owner(Protocol):
    """Who is told what becomes of a frame; on the event loop.

    Attributes:
        replays: Whether it wants to know when a frame leaves its slot.
    """

    replays: bool

    def left_slot(self, frame: Frame) -> None:
        """The frame does not wait any more."""

    def deliver(self, answer: Answer) -> None:
        """The frame's one answer."""


@dataclass(eq=False)
class OpenCamera:
    """A camera of an open stream.

    Attributes:
        key: Its name among all streams.
        spec: As the stream declared it.
        owner: The stream.
        tensors: Names of the dense outputs to answer beside detections.
        metrics: Its series.
        last_sequence: Sequence of its last accepted frame.
    """

    key: CameraKey
    spec: camera_pb2.Camera
    owner: Owner
    tensors: tuple[str, ...]
    metrics: CameraMetrics
    last_sequence: int | None = None

    @property
    def focal_px(self) -> float | None:
        """Horizontal focal length in frame pixels; None where unknown."""
        known = self.spec.HasField("intrinsics") and self.spec.intrinsics.fx_px > 0
        return self.spec.intrinsics.fx_px if known else None


class SharedPixels(Protocol):
    """Shared memory that a frame's pixels lie in, and that its client could overwrite."""

    def intact(self) -> bool:
        """Whether nothing was written there since the frame was sent; to be asked once the pixels were read."""

    def give_back(self) -> None:
        """The frame was answered: its client may write there again."""


_NO_PIXELS = memoryview(b"")


@dataclass(eq=False, slots=True)
class Frame:
    """A frame from receipt to answer.

    Attributes:
        camera: The camera that took it.
        header: As it came.
        pixels: Its bytes, until they are not needed any more.
        ledger: Where its time went.
        captured: When it was taken, in the server's monotonic clock; None where the clocks cannot be compared.
        uncertainty_ns: Error bound of `captured`.
        deadline_ns: When an answer is of no use any more, in the same clock; None means never.
        decoded_bytes: Size of its image.
        shared: Where `pixels` are not ours but in shared memory; None where they are.
        frame_set: The set it belongs to, once that is there; None for a frame of no set.
        picture: What the camera's video decoder made of its access unit; None for the other encodings.
        answered: Whether it has had its one answer.
        give_back: Called once `pixels` are not needed any more, where their memory is used again.
    """

    camera: OpenCamera
    header: camera_pb2.FrameHeader
    pixels: memoryview
    ledger: Ledger
    captured: int | None = None
    uncertainty_ns: int = 0
    deadline_ns: int | None = None
    decoded_bytes: int = 0
    shared: SharedPixels | None = None
    frame_set: FrameSet | None = None
    picture: Samples | None = None
    answered: bool = False
    give_back: Callable[[], None] | None = None
    frame_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.frame_bytes = len(self.pixels)

    @property
    def taken_ns(self) -> int:
        """When it was captured, in the client's own clock; when it came, where the client does not say."""
        return self.header.capture_time_ns or self.ledger.received

    @property
    def torn(self) -> bool:
        """Whether its pixels were overwritten; means something only while it has them, after they were read."""
        return self.shared is not None and not self.shared.intact()

    def release(self) -> None:
        """Let go of the pixel bytes, and of the picture."""
        self.take_picture(None)

    def take_picture(self, picture: Samples | None) -> None:
        """Its access unit was decoded: keep the picture in its place."""
        self.pixels = _NO_PIXELS
        self.picture = picture
        if self.give_back is not None:
            give_back, self.give_back = self.give_back, None
            give_back()


class Answer(NamedTuple):
    """What became of a frame.

    Attributes:
        frame: The frame.
        status: The name of its `Status`, lower case: a value of `metrics.STATUSES`.
        body: Its `Result` on the wire, but for the time it took.
        schema: Of the engine, see `EngineFacts`.
        found: Its detections, for an engine that has them.
    """

    frame: Frame
    status: str
    body: bytes
    schema: str = ""
    found: Detections | None = None
