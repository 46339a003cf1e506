"""Checks a camera and its frames before anything is sent.

The server checks the same and answers REFUSED; here the mistake is found where it was made, for free.
"""

from __future__ import annotations

import math
import re
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from client.errors import FrameInvalid
from client.frames import ENCODINGS, Camera, ColorMatrix, ColorRange, Encoding, Frame

CAMERA_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What a camera may be called."""

COMPRESSED_START: dict[Encoding, bytes] = {
    "jpeg": b"\xff\xd8\xff",
    "png": b"\x89PNG\r\n\x1a\n",
    "h264": b"\x00\x00",
    "h265": b"\x00\x00",
}
"""What compressed frames begin with."""

_COLOR_CHOICES: dict[str, tuple[str, ...]] = {
    "color_matrix": get_args(ColorMatrix),
    "color_range": get_args(ColorRange),
}
_EVEN_WIDTH = {"nv12", "yuyv", "bayer_rggb8", "bayer_rggb12", "bayer_rggb12p", "bayer_rggb16"}
_EVEN_HEIGHT = _EVEN_WIDTH - {"yuyv"}


def check_camera(camera: Camera) -> None:
    """Raise `FrameInvalid` unless a server can accept this camera."""
    if not CAMERA_ID.fullmatch(camera.id):
        raise FrameInvalid(f"camera id {camera.id!r} is not 1 to 64 letters, digits, '_', '-' or '.'")
    if camera.encoding not in ENCODINGS:
        raise FrameInvalid(f"camera {camera.id}: encoding {camera.encoding!r} is not one of {', '.join(ENCODINGS)}")
    if camera.width < 1 or camera.height < 1:
        raise FrameInvalid(f"camera {camera.id}: size {camera.width}x{camera.height} has no pixels")
    odd = (camera.encoding in _EVEN_WIDTH and camera.width % 2) or (
        camera.encoding in _EVEN_HEIGHT and camera.height % 2
    )
    if odd:
        needs = "even sizes" if camera.encoding in _EVEN_HEIGHT else "an even width"
        raise FrameInvalid(
            f"camera {camera.id}: {camera.encoding} needs {needs}, this is {camera.width}x{camera.height}"
        )


def row_bytes(encoding: Encoding, width: int) -> int:
    """Bytes of one row without padding; 0 for compressed encodings."""
    if encoding in COMPRESSED_START:
        return 0
    return math.prod(frame_shape(encoding, width, 2)[1:])


def frame_shape(encoding: Encoding, width: int, height: int) -> tuple[int, ...]:
    """Shape of an uncompressed frame as an array of `uint8`."""
    shapes: dict[str, tuple[int, ...]] = {
        "rgb8": (height, width, 3),
        "bgr8": (height, width, 3),
        "gray8": (height, width),
        "nv12": (height * 3 // 2, width),
        "yuyv": (height, width, 2),
        "gray16": (height, width, 2),
        "bayer_rggb8": (height, width),
        "bayer_rggb12": (height, width, 2),
        "bayer_rggb12p": (height, width * 3 // 2),
        "bayer_rggb16": (height, width, 2),
    }
    return shapes[encoding]


def checked_pixels(camera: Camera, frame: Frame) -> memoryview:
    """The frame's bytes, one row after the other.

    Raises:
        FrameInvalid: They are not a frame of this camera.
    """
    where = f"frame of camera {camera.id}"
    _check_header(frame, where)
    if isinstance(frame.pixels, np.ndarray):
        return _array_pixels(camera, frame.pixels, where)
    try:
        pixels = memoryview(frame.pixels).cast("B")
    except TypeError:
        raise FrameInvalid(
            f"{where}: pixels are {type(frame.pixels).__name__}, neither bytes nor an array"
            + ("; could the image not be read?" if frame.pixels is None else "")
        ) from None
    if camera.encoding in COMPRESSED_START:
        _check_compressed(camera, pixels, where)
        return pixels
    row = row_bytes(camera.encoding, camera.width)
    stride = frame.stride_bytes or row
    if stride < row:
        raise FrameInvalid(f"{where}: stride {stride} is shorter than a row of {row} bytes")
    rows = frame_shape(camera.encoding, camera.width, camera.height)[0]
    if len(pixels) != stride * rows:
        raise FrameInvalid(
            f"{where}: {len(pixels)} bytes, but {camera.width}x{camera.height} {camera.encoding} with stride {stride}"
            f" has {stride * rows}"
        )
    return pixels


def _check_header(frame: Frame, where: str) -> None:
    for name in ("capture_time_ns", "max_age_ns", "stride_bytes"):
        value = getattr(frame, name)
        if value is not None and not hasattr(value, "__index__"):
            raise FrameInvalid(f"{where}: {name} is {value!r}, a {type(value).__name__}; give an int")
    if frame.capture_time_ns is not None and not -(2**63) <= frame.capture_time_ns < 2**63:
        raise FrameInvalid(f"{where}: capture time {frame.capture_time_ns} does not fit 64 bits; it is in nanoseconds")
    if frame.max_age_ns is not None and not 0 < frame.max_age_ns < 2**63:
        raise FrameInvalid(f"{where}: max_age_ns is {frame.max_age_ns}; give a positive age, or None for the stream's")
    if not 0 <= frame.stride_bytes < 2**32:
        raise FrameInvalid(
            f"{where}: stride_bytes is {frame.stride_bytes}; give the bytes from one row to the next, or 0"
        )
    for name, choices in _COLOR_CHOICES.items():
        if (value := getattr(frame, name)) is not None and value not in choices:
            raise FrameInvalid(f"{where}: {name} is {value!r}; give one of {', '.join(choices)}, or None")


def _array_pixels(camera: Camera, array: NDArray[Any], where: str) -> memoryview:
    if array.dtype == np.uint16 and camera.encoding in ("gray16", "bayer_rggb12", "bayer_rggb16"):
        array = np.ascontiguousarray(array, "<u2")[..., None].view(np.uint8)
    if array.dtype != np.uint8:
        raise FrameInvalid(f"{where}: the array holds {array.dtype}, pixels are uint8; convert with .astype('uint8')")
    if camera.encoding in COMPRESSED_START:
        if array.ndim != 1:
            raise FrameInvalid(
                f"{where}: {camera.encoding} takes the file's bytes, this is an image of shape {array.shape}; "
                f"compress it with {_HOW[camera.encoding]}"
            )
        pixels = np.ascontiguousarray(array).data
        _check_compressed(camera, pixels, where)
        return pixels
    expected = frame_shape(camera.encoding, camera.width, camera.height)
    if array.shape != expected:
        raise FrameInvalid(
            f"{where}: the array has shape {array.shape}, "
            f"{camera.width}x{camera.height} {camera.encoding} has {expected}"
        )
    return np.ascontiguousarray(array).data.cast("B")


_KIND: dict[str, str] = {
    "jpeg": "a JPEG file",
    "png": "a PNG file",
    "h264": "an access unit with start codes (Annex B)",
    "h265": "an access unit with start codes (Annex B)",
}
_HOW: dict[str, str] = {
    "jpeg": "client.encode(image, 'jpeg')",
    "png": "client.encode(image, 'png')",
    "h264": "client.VideoEncoder('h264', width, height)",
    "h265": "client.VideoEncoder('h265', width, height)",
}


def _check_compressed(camera: Camera, pixels: memoryview, where: str) -> None:
    start = COMPRESSED_START[camera.encoding]
    if bytes(pixels[: len(start)]) != start:
        raise FrameInvalid(f"{where}: {len(pixels)} bytes that do not begin like {_KIND[camera.encoding]}")
