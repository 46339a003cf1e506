"""Cameras and their frames, as a user of the client writes them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from protos.monocoque.v1 import camera_pb2

Encoding = Literal[
    "jpeg", "png", "rgb8", "bgr8", "gray8", "nv12", "yuyv",
    "gray16", "bayer_rggb8", "bayer_rggb12", "bayer_rggb12p", "bayer_rggb16", "h264", "h265",
]  # fmt: skip
"""How pixel bytes are laid out; `protos/monocoque/v1/camera.proto` defines each."""

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
"""All of them, in the order of the proto file."""

ColorMatrix = Literal["bt601", "bt709"]
"""Which weights turn YUV into RGB."""

ColorRange = Literal["full", "limited"]
"""Whether samples take all 256 values or leave head and foot room."""

Image = NDArray[np.uint8]
"""Pixels as bytes: (H, W, 3) RGB unless it says otherwise."""


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera's optics, in pixels of the frames it sends.

    Attributes:
        fx_px: Horizontal focal length.
        fy_px: Vertical focal length.
        cx_px: Column of the principal point.
        cy_px: Row of the principal point.
    """

    fx_px: float
    fy_px: float
    cx_px: float
    cy_px: float


@dataclass(frozen=True)
class Mounting:
    """Where a camera sits: x forward, y left, z up, origin on the ground below the rear axle.

    Attributes:
        x_m: Metres forward.
        y_m: Metres to the left.
        z_m: Metres up.
        yaw_rad: Radians about z, to the left positive.
        pitch_rad: Radians about y, downward positive.
        roll_rad: Radians about x.
    """

    x_m: float = 0.0
    y_m: float = 0.0
    z_m: float = 0.0
    yaw_rad: float = 0.0
    pitch_rad: float = 0.0
    roll_rad: float = 0.0


@dataclass(frozen=True)
class Camera:
    """One camera of a stream.

    Attributes:
        id: Name, unique in its stream: 1 to 64 letters, digits, `_`, `-`, `.`.
        width: Columns of its frames.
        height: Rows of its frames.
        encoding: Layout of its frames' bytes.
        period_ns: Time between frames; 0 where it is not known.
        intrinsics: Its optics; None: detections carry no distance.
        mounting: Its place on the vehicle, passed on to watchers.
        priority: Added to the stream's: 1 for the camera that is served first.
        weight: Its share of the engine among cameras of its priority, where there are more frames than it can compute.
    """

    id: str
    width: int
    height: int
    encoding: Encoding = "jpeg"
    period_ns: int = 0
    intrinsics: Intrinsics | None = None
    mounting: Mounting | None = None
    priority: int = 0
    weight: int = 1

    def with_encoding(self, encoding: Encoding) -> Camera:
        """The same camera sending another encoding."""
        return replace(self, encoding=encoding)

    def to_proto(self) -> camera_pb2.Camera:
        """The message that declares this camera."""
        message = camera_pb2.Camera(
            id=self.id,
            width=self.width,
            height=self.height,
            encoding=encoding_to_proto(self.encoding),
            period_ns=self.period_ns,
            priority=self.priority,
            weight=self.weight,
        )
        if self.intrinsics is not None:
            message.intrinsics.CopyFrom(camera_pb2.Intrinsics(**vars(self.intrinsics)))
        if self.mounting is not None:
            message.mounting.CopyFrom(camera_pb2.Mounting(**vars(self.mounting)))
        return message

    @staticmethod
    def from_proto(message: camera_pb2.Camera) -> Camera:
        """The camera that a message declares."""
        optics, place = message.intrinsics, message.mounting
        return Camera(
            id=message.id,
            width=message.width,
            height=message.height,
            encoding=encoding_from_proto(message.encoding),
            period_ns=message.period_ns,
            intrinsics=Intrinsics(optics.fx_px, optics.fy_px, optics.cx_px, optics.cy_px)
            if message.HasField("intrinsics")
            else None,
            mounting=Mounting(place.x_m, place.y_m, place.z_m, place.yaw_rad, place.pitch_rad, place.roll_rad)
            if message.HasField("mounting")
            else None,
            priority=message.priority,
            weight=message.weight or 1,
        )


@dataclass(frozen=True)
class Frame:
    """One image of one camera.

    Attributes:
        camera_id: A camera of the stream.
        pixels: The bytes, or an array of `uint8`: (H, W, 3) for `rgb8` and `bgr8`, (H, W) for `gray8` and
            `bayer_rggb8`, (H * 3 / 2, W) for `nv12`, (H, W, 2) for `yuyv`, (H, W * 3 / 2) for `bayer_rggb12p`, (N,) for
            `jpeg`, `png`, `h264` and `h265`; (H, W) of `uint16` for `gray16`, `bayer_rggb12` and `bayer_rggb16`. They
            are not copied: leave them alone until the frame's result is back.
        capture_time_ns: When the shutter opened, in the stream's clock; None: when it is submitted.
        stride_bytes: Bytes from one row to the next, for bytes whose rows are padded; 0: they are not.
        max_age_ns: Age at which an answer is of no use any more; None: the stream's.
        color_matrix: YUV weights; None: BT.601 for up to 576 rows, BT.709 above.
        color_range: Sample range; None: limited for the YUV encodings, full for the rest.
        context: Anything of yours; comes back as `result.frame.context`.
    """

    camera_id: str
    pixels: bytes | bytearray | memoryview | Image | NDArray[np.uint16]
    capture_time_ns: int | None = None
    stride_bytes: int = 0
    max_age_ns: int | None = None
    color_matrix: ColorMatrix | None = None
    color_range: ColorRange | None = None
    context: Any = None


def encoding_to_proto(encoding: Encoding) -> camera_pb2.Encoding.ValueType:
    """`jpeg` as `ENCODING_JPEG`."""
    return camera_pb2.Encoding.Value(f"ENCODING_{encoding.upper()}")


def encoding_from_proto(encoding: camera_pb2.Encoding.ValueType) -> Encoding:
    """`ENCODING_JPEG` as `jpeg`."""
    return ENCODINGS[encoding - 1]
