"""Colour matrices and value ranges.

YUV to RGB: ITU-R BT.601-7 and BT.709-6, ITU-T H.273 for the ranges. Samples outside the limited range are converted
like any other and saturate.
"""

from __future__ import annotations

import functools
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import write
from protos.monocoque.v1 import camera_pb2 as pb

Color = Literal["rgb", "bgr", "gray"]
ValueRange = Literal["full", "limited"]
Array = npt.NDArray[np.uint8]

LAST_ROW_OF_SD = 576
"""Frames with more rows are high definition, and BT.709 unless they say otherwise."""
_LUMA_WEIGHTS: dict[int, tuple[float, float]] = {
    pb.COLOR_MATRIX_BT601: (0.299, 0.114),
    pb.COLOR_MATRIX_BT709: (0.2126, 0.0722),
}
"""Weights of red and blue in luma."""


def matrix_of(header: pb.FrameHeader) -> int:
    """The matrix that a frame declares, or the one its size implies."""
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


def change_range(image: Array, limited: bool, value_range: ValueRange) -> None:
    """Bring an image to the range that the network expects, in place.

    Args:
        image: Any shape.
        limited: Whether its samples are in limited range.
        value_range: Range of the result.
    """
    if limited != (value_range == "limited"):
        write(image, cv2.LUT(image, _range_table(to_limited=not limited), dst=image))


@functools.cache
def _range_table(to_limited: bool) -> Array:
    """Full range to limited, or back: one entry per value."""
    values = np.arange(256)
    scaled = values * (219 / 255) + 16 if to_limited else (values - 16) * (255 / 219)
    return np.asarray(np.clip(np.rint(scaled), 0, 255), np.uint8)


def convert_channels(image: Array, source: Color, target: Color, out: Array) -> None:
    """Bring channels into another order, or grey to three equal ones, or colour to luma (BT.601).

    Args:
        image: `(H, W, 3)`, or `(H, W)` for grey.
        source: Its order.
        target: Another order.
        out: The same size, written.
    """
    code: Any = getattr(cv2, f"COLOR_{source.upper()}2{target.upper()}")
    write(out, cv2.cvtColor(image, code, dst=out))
