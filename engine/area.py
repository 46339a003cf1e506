"""The `area` kernel: about the mean over what a pixel covers, in steps that OpenCV computes with vector instructions.

`cv2.INTER_AREA` is exact, and slow at most factors. Here, per axis,

1. means of two are taken as long as more than a mean of three is left to do,
2. where about three are left, the image is blurred over three and sampled between the blurred pixels: exact at three,
3. where about two are left, it is sampled at twice the wanted pixels, and means of two are taken: exact at two,
4. where less is left, or the image is enlarged, it is sampled.

Sampling is bilinear.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]

ABOUT_TWO, ABOUT_THREE, MORE = 1.3, 2.65, 3.7
"""Factors from which each of the steps is nearer to the exact mean of white noise than the one before."""


@dataclass(frozen=True)
class Steps:
    """How one axis is shrunk.

    Attributes:
        halvings: Means of two to begin with.
        blurred: Pixels over which it is blurred then; 1: not at all.
        times: Samples per wanted pixel; 2: a mean of two ends it.
    """

    halvings: int
    blurred: int
    times: int


@functools.lru_cache(maxsize=256)
def steps(side: int, wanted: int) -> Steps | None:
    """How an axis of `side` pixels becomes one of `wanted`; None where means of two do not come out even."""
    halvings = 0
    while side >= MORE * wanted or side == 2 * wanted:
        if side % 2:
            return None
        side, halvings = side // 2, halvings + 1
    return Steps(
        halvings, 3 if side >= ABOUT_THREE * wanted else 1, 2 if ABOUT_TWO <= side / wanted < ABOUT_THREE else 1
    )


def shrink(image: Array, out: Array) -> None:
    """Resize by the `area` kernel.

    Args:
        image: `(H, W, C)` or `(H, W)`.
        out: The same with other sides, written.
    """
    rows, columns = out.shape[:2]
    if (down := steps(image.shape[0], rows)) is None:
        image, down = _exactly(image, rows, image.shape[1]), Steps(0, 1, 1)
    if (across := steps(image.shape[1], columns)) is None:
        image, across = _exactly(image, image.shape[0], columns), Steps(0, 1, 1)
    for turn in range(max(down.halvings, across.halvings)):
        image = _halved(image, turn < down.halvings, turn < across.halvings)
    if down.blurred > 1 or across.blurred > 1:
        blurred = cv2.blur(image, (across.blurred, down.blurred), borderType=cv2.BORDER_REPLICATE)
        image = np.asarray(blurred, np.uint8)
    finer = down.times * rows, across.times * columns
    if finer != (rows, columns) and finer != image.shape[:2]:
        image = np.asarray(cv2.resize(image, finer[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)
    code = _mean_of_two(down.times == 2, across.times == 2)
    write(out, cv2.resize(image, (columns, rows), dst=out, interpolation=code))


def write(out: Array, result: Any) -> None:  # noqa: ANN401 - OpenCV's stubs allow any element type
    """Make sure that what OpenCV computed is in `out`: it may decline to write in place."""
    if result.ctypes.data != out.ctypes.data:
        out[:] = result.reshape(out.shape)


def _exactly(image: Array, rows: int, columns: int) -> Array:
    return np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)


def _halved(image: Array, down: bool, across: bool) -> Array:
    size = image.shape[1] // (2 if across else 1), image.shape[0] // (2 if down else 1)
    return np.asarray(cv2.resize(image, size, interpolation=_mean_of_two(down, across)), np.uint8)


def _mean_of_two(down: bool, across: bool) -> int:
    """Along one axis the bilinear kernel at exactly half is the mean of two as well, and faster."""
    return cv2.INTER_AREA if down and across else cv2.INTER_LINEAR
