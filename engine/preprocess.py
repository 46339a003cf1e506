"""From a camera's image to the network's input: geometry only, since scale and mean are in the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.manifest import Preprocessing

_ENLARGE = {
    "area": cv2.INTER_LINEAR,
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
    "bicubic": cv2.INTER_CUBIC,
}
_SHRINK = _ENLARGE | {"area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Placement:
    """Where a frame lies in the network input.

    `network = frame * scale + offset`, in pixels, per axis; pixel centres are at half-integers.

    Attributes:
        scale_x: Network columns per frame column.
        scale_y: Network rows per frame row.
        offset_x: First network column of the frame.
        offset_y: First network row of the frame.
        width: Network columns that the frame covers.
        height: Network rows that the frame covers.
    """

    scale_x: float
    scale_y: float
    offset_x: int
    offset_y: int
    width: int
    height: int

    def to_frame(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes in network pixels, moved to frame pixels.

        Args:
            boxes: `(n, 4)`: x_min, y_min, x_max, y_max.
        """
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return ((boxes - offset) / scale).astype(np.float32)


def place(frame_width: int, frame_height: int, spec: Preprocessing) -> Placement:
    """Where a frame of this size goes.

    Raises:
        ValueError: The frame has no pixels.
    """
    if frame_width < 1 or frame_height < 1:
        raise ValueError(f"a frame of {frame_width}x{frame_height} pixels")
    if spec.resize == "stretch":
        return Placement(spec.width / frame_width, spec.height / frame_height, 0, 0, spec.width, spec.height)
    scale = min(spec.width / frame_width, spec.height / frame_height)
    width = min(spec.width, max(1, round(frame_width * scale)))
    height = min(spec.height, max(1, round(frame_height * scale)))
    return Placement(
        width / frame_width,
        height / frame_height,
        (spec.width - width) // 2,
        (spec.height - height) // 2,
        width,
        height,
    )


def resize_into(frame: npt.NDArray[np.uint8], spec: Preprocessing, out: npt.NDArray[Any]) -> Placement:
    """Write a frame into its place of the batched network input.

    Args:
        frame: `(H, W, C)` in the colour order that `spec` wants; `(H, W)` or `(H, W, 1)` for grey.
        spec: The bundle's preprocessing.
        out: `(height, width, C)` uint8, contiguous: one entry of the input batch. Every byte is written.

    Raises:
        ValueError: The frame has no pixels, other channels than `out`, or is not uint8; or `out` is not the size of
            the network input.
    """
    channels = 1 if frame.ndim == 2 else frame.shape[-1]
    wanted = (spec.height, spec.width, channels)
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or frame.size == 0 or out.shape != wanted:
        raise ValueError(f"a frame {frame.dtype}{list(frame.shape)} for a network input {out.dtype}{list(out.shape)}")
    placement = place(frame.shape[1], frame.shape[0], spec)
    if (placement.width, placement.height) != (spec.width, spec.height):
        out[:] = spec.pad_value
    x, y = placement.offset_x, placement.offset_y
    window = out[y : y + placement.height, x : x + placement.width]
    if frame.shape[:2] == window.shape[:2]:
        window[:] = frame.reshape(window.shape)
        return placement
    kernel = (_SHRINK if placement.scale_x * placement.scale_y < 1 else _ENLARGE)[spec.kernel]
    resized = cv2.resize(frame, (placement.width, placement.height), dst=window, interpolation=kernel)
    if resized.ctypes.data != window.ctypes.data:  # OpenCV may decline to write in place
        window[:] = resized.reshape(window.shape)
    return placement
