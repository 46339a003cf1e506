"""From a camera's image to the network's input: geometry only, since scale and mean are in the graph."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import shrink, write
from engine.manifest import Preprocessing

Array = npt.NDArray[np.uint8]

_CODES = {
    "bilinear": cv2.INTER_LINEAR,
    "nearest": cv2.INTER_NEAREST,
    "bicubic": cv2.INTER_CUBIC,
}
CROP_UNIT, SMALL_CROP_UNIT, SMALL_SIDE = 8, 2, 256
"""A crop begins and ends on multiples of 8 frame pixels (of 2 where the frame's side is smaller than 256), so that
the same crop can be taken from subsampled colour planes and from a JPEG decoded at an eighth of its size."""


@dataclass(frozen=True)
class Crop:
    """The middle part of a frame.

    Attributes:
        x: Its first column.
        y: Its first row.
        width: Its columns.
        height: Its rows.
        frame_width: Columns of the frame.
        frame_height: Rows of the frame.
    """

    x: int
    y: int
    width: int
    height: int
    frame_width: int
    frame_height: int

    def of(self, plane: Array) -> Array:
        """This part of the frame, or of anything that covers the frame at another resolution: a view."""
        y, y_end = _span(self.y, self.height, self.frame_height, plane.shape[0])
        x, x_end = _span(self.x, self.width, self.frame_width, plane.shape[1])
        return plane[y:y_end, x:x_end]


@dataclass(frozen=True)
class Placement:
    """Which part of a frame is used, and where it lies in the network input.

    `network = frame * scale + offset`, in pixels, per axis; pixel centres are at half-integers.

    Attributes:
        scale_x: Network columns per frame column.
        scale_y: Network rows per frame row.
        offset_x: Network column where the frame's first column lies; negative where it is cropped away.
        offset_y: Network row where the frame's first row lies; negative where it is cropped away.
        width: Network columns that the frame covers.
        height: Network rows that the frame covers.
        crop: The part of the frame that is used; None: all of it.
    """

    scale_x: float
    scale_y: float
    offset_x: float
    offset_y: float
    width: int
    height: int
    crop: Crop | None = None

    def to_frame(self, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Boxes in network pixels, moved to frame pixels.

        Args:
            boxes: `(n, 4)`: x_min, y_min, x_max, y_max.
        """
        offset = np.array([self.offset_x, self.offset_y] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        return ((boxes - offset) / scale).astype(np.float32)

    def part(self, plane: Array) -> Array:
        """What is used of a frame, or of anything that covers it at another resolution: a view."""
        return plane if self.crop is None else self.crop.of(plane)

    def window(self, out: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Where the frame lies in a network input: a view."""
        x, y = max(0, round(self.offset_x)), max(0, round(self.offset_y))
        return out[y : y + self.height, x : x + self.width]


@functools.lru_cache(maxsize=64)
def place(frame_width: int, frame_height: int, spec: Preprocessing) -> Placement:
    """Where a frame of this size goes. Cached: cameras keep their size.

    Raises:
        ValueError: The frame has no pixels.
    """
    if frame_width < 1 or frame_height < 1:
        raise ValueError(f"a frame of {frame_width}x{frame_height} pixels")
    if spec.resize == "stretch":
        return Placement(spec.width / frame_width, spec.height / frame_height, 0, 0, spec.width, spec.height)
    if spec.resize == "crop":
        crop = _middle(frame_width, frame_height, spec)
        scale_x, scale_y = spec.width / crop.width, spec.height / crop.height
        return Placement(scale_x, scale_y, -crop.x * scale_x, -crop.y * scale_y, spec.width, spec.height, crop)
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


def _middle(frame_width: int, frame_height: int, spec: Preprocessing) -> Crop:
    """The largest part of a frame, from its middle, that has the network's aspect ratio."""
    scale = max(spec.width / frame_width, spec.height / frame_height)
    width, height = _used(frame_width, spec.width / scale), _used(frame_height, spec.height / scale)
    return Crop(_begin(frame_width, width), _begin(frame_height, height), width, height, frame_width, frame_height)


def _span(begin: int, length: int, frame_side: int, plane_side: int) -> tuple[int, int]:
    """A span of frame pixels in a plane of another resolution; never empty."""
    first = min(round(begin * plane_side / frame_side), plane_side - 1)
    return first, max(first + 1, round((begin + length) * plane_side / frame_side))


def _used(side: int, wanted: float) -> int:
    """Pixels of a side that a crop uses."""
    unit = _unit(side)
    return side if round(wanted) >= side else max(1, min(side, max(unit, round(wanted / unit) * unit)))


def _begin(side: int, used: int) -> int:
    """First pixel of a crop from the middle of a side."""
    unit = _unit(side)
    return (side - used) // 2 // unit * unit


def _unit(side: int) -> int:
    return CROP_UNIT if side >= SMALL_SIDE else SMALL_CROP_UNIT


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
    fill_border(out, placement, spec)
    resize(placement.part(frame), placement.window(out), spec.kernel)
    return placement


def fill_border(out: npt.NDArray[Any], placement: Placement, spec: Preprocessing) -> None:
    """Fill what the frame does not cover."""
    if (placement.width, placement.height) != (spec.width, spec.height):
        out[:] = spec.pad_value


def resize(image: Array, out: Array, kernel: str) -> None:
    """Resize an image, or one plane of it.

    Args:
        image: `(H, W, C)` or `(H, W)`.
        out: The same with other sides, written.
        kernel: Of `Preprocessing`.
    """
    rows, columns = out.shape[:2]
    if image.shape[:2] == (rows, columns):
        out[:] = image.reshape(out.shape)
    elif kernel == "area":
        shrink(image, out)
    else:
        write(out, cv2.resize(image, (columns, rows), dst=out, interpolation=_CODES[kernel]))
