"""From pixel bytes to an image in the colour order and range that the network expects.

YUV to RGB: ITU-R BT.601-7 and BT.709-6, ITU-T H.273 for the ranges. Each chroma sample serves the pixels it was
taken from (nearest), as cameras' own converters do. Samples outside the limited range are converted like any other
and saturate.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from protos.monocoque.v1 import camera_pb2 as pb
from server.layout import FILE_ENCODINGS, YUV_ENCODINGS, row_bytes

Color = Literal["rgb", "bgr", "gray"]
ValueRange = Literal["full", "limited"]
Image = npt.NDArray[np.uint8]

LAST_ROW_OF_SD = 576
"""Frames with more rows are high definition, and BT.709 unless they say otherwise."""
_LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    pb.COLOR_MATRIX_BT601: (0.299, 0.114),
    pb.COLOR_MATRIX_BT709: (0.2126, 0.0722),
}
"""Weights of red and blue in luma."""


class DecodeFailed(Exception):
    """The pixel bytes are not what their header says."""


def decode(header: pb.FrameHeader, pixels: memoryview, color: Color, value_range: ValueRange) -> Image:
    """Decode a frame that `layout.check_frame` found in order.

    Args:
        header: The frame's header.
        pixels: Its bytes.
        color: Channel order of the result.
        value_range: Range of the result.

    Returns:
        `(H, W, 3)`, or `(H, W)` for grey. May be a view into `pixels`.

    Raises:
        DecodeFailed: An image file is damaged.
    """
    if header.encoding in FILE_ENCODINGS:
        image = _decode_file(header, pixels, color)
    elif header.encoding in YUV_ENCODINGS:
        return _decode_yuv(header, pixels, color, value_range)
    else:
        image = _reorder(_rows(header, pixels, header.height), header.encoding, color)
    limited = header.color_range == pb.COLOR_RANGE_LIMITED
    if limited == (value_range == "limited"):
        return image
    return _image(cv2.LUT(image, _range_table(to_limited=not limited)))


def _decode_file(header: pb.FrameHeader, pixels: memoryview, color: Color) -> Image:
    flags = {"rgb": cv2.IMREAD_COLOR_RGB, "bgr": cv2.IMREAD_COLOR_BGR, "gray": cv2.IMREAD_GRAYSCALE}[color]
    try:
        # The orientation tag is for people who hold a camera sideways; intrinsics and boxes are in stored pixels.
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DecodeFailed(f"the image file cannot be decoded: {error.err or error}") from None
    if image is None:
        raise DecodeFailed(f"the image file of {len(pixels)} bytes cannot be decoded")
    if image.shape[:2] != (header.height, header.width):
        raise DecodeFailed(
            f"the image file decodes to {image.shape[1]}x{image.shape[0]}, not {header.width}x{header.height}"
        )
    return _image(image)


def _rows(header: pb.FrameHeader, pixels: memoryview, rows: int, first_row: int = 0) -> Image:
    """Rows of one plane, without their padding: `(rows, W, bytes per pixel)`, or `(rows, W)` for one byte."""
    row = row_bytes(header.encoding, header.width)
    stride = header.stride_bytes or row
    plane = np.frombuffer(pixels, np.uint8, count=rows * stride, offset=first_row * stride).reshape(rows, stride)
    channels = row // header.width
    if channels == 1:
        return plane[:, :row]
    return plane[:, :row].reshape(rows, header.width, channels)


def _reorder(image: Image, encoding: int, color: Color) -> Image:
    source = {pb.ENCODING_RGB8: "RGB", pb.ENCODING_BGR8: "BGR", pb.ENCODING_GRAY8: "GRAY"}[
        pb.Encoding.ValueType(encoding)
    ]
    if source == color.upper():
        return image
    return _image(cv2.cvtColor(image, getattr(cv2, f"COLOR_{source}2{color.upper()}")))


def _decode_yuv(header: pb.FrameHeader, pixels: memoryview, color: Color, value_range: ValueRange) -> Image:
    limited = header.color_range != pb.COLOR_RANGE_FULL
    if header.encoding == pb.ENCODING_NV12:
        luma = _rows(header, pixels, header.height)
        chroma = _rows(header, pixels, header.height // 2, first_row=header.height).reshape(header.height // 2, -1, 2)
    else:
        pairs = _rows(header, pixels, header.height)  # (H, W, 2): Y, then U and V in turns
        luma, chroma = pairs[..., 0], pairs[..., 1].reshape(header.height, -1, 2)
    if color == "gray":
        if limited == (value_range == "limited"):
            return luma
        return _image(cv2.LUT(luma, _range_table(to_limited=not limited)))
    chroma_full = cv2.resize(chroma, (header.width, header.height), interpolation=cv2.INTER_NEAREST)
    yuv = np.empty((header.height, header.width, 3), np.uint8)
    cv2.mixChannels([luma, chroma_full], [yuv], [0, 0, 1, 1, 2, 2])
    weights = yuv_to_rgb(_matrix(header), limited, value_range)
    return _image(cv2.transform(yuv, weights if color == "rgb" else weights[::-1]))


def _matrix(header: pb.FrameHeader) -> int:
    if header.color_matrix in _LUMA_WEIGHTS:
        return header.color_matrix
    return pb.COLOR_MATRIX_BT709 if header.height > LAST_ROW_OF_SD else pb.COLOR_MATRIX_BT601


@functools.cache
def yuv_to_rgb(matrix: int, limited: bool, value_range: ValueRange) -> npt.NDArray[np.float64]:
    """Weights of Y, U, V and 1 in red, green and blue: `(3, 4)`.

    Args:
        matrix: BT601 or BT709.
        limited: Whether the samples are in limited range.
        value_range: Range of the result.
    """
    red, blue = _LUMA_WEIGHTS[matrix]
    green = 1 - red - blue
    weights = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    scale = np.array([255 / 219, 255 / 224, 255 / 224]) if limited else np.ones(3)
    weights = weights * scale
    offset = -weights @ np.array([16 if limited else 0, 128, 128])
    if value_range == "limited":
        weights, offset = weights * (219 / 255), offset * (219 / 255) + 16
    return np.column_stack([weights, offset])


@functools.cache
def _range_table(to_limited: bool) -> Image:
    """Full range to limited, or back: one entry per value."""
    values = np.arange(256)
    scaled = values * (219 / 255) + 16 if to_limited else (values - 16) * (255 / 219)
    return _image(np.clip(np.rint(scaled), 0, 255))


def _image(array: Any) -> Image:  # noqa: ANN401 - OpenCV's stubs allow any element type
    return np.asarray(array, np.uint8)
