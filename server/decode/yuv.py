"""NV12 and YUYV."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import shrink
from engine.manifest import Preprocessing
from engine.preprocess import Placement
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.buffers import scratch
from server.decode.color import matrix_of
from server.decode.planes import rows
from server.decode.samples import Yuv

Array = npt.NDArray[np.uint8]


def decode_nv12(header: pb.FrameHeader, pixels: memoryview) -> Yuv:
    """NV12: nothing is copied."""
    half = header.height // 2
    luma = rows(header, pixels, header.height)
    chroma = rows(header, pixels, half, first=header.height).reshape(half, header.width // 2, 2)
    return Yuv(luma, (chroma,), matrix_of(header), header.color_range != pb.COLOR_RANGE_FULL)


@dataclass(frozen=True)
class Yuyv:
    """Luma and chroma in turns.

    Attributes:
        pairs: `(H, W / 2, 4)`: Y0, U, Y1, V.
        matrix: `ColorMatrix`.
        limited: Whether they are in limited range.
    """

    pairs: Array
    matrix: int
    limited: bool

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return self.pairs.nbytes

    def write(self, placement: Placement, spec: Preprocessing, window: Array) -> None:
        """Take luma and chroma apart, then on as any YUV."""
        pairs = self.pairs
        if spec.kernel == "area" and placement.crop is None and len(pairs) > window.shape[0]:
            # Fewer rows before anything is taken apart: a column of pairs is a column of each of their samples.
            fewer = scratch("fewer_pairs", window.shape[0], *pairs.shape[1:])
            shrink(pairs, fewer)
            pairs = fewer
        height, half_width = pairs.shape[:2]
        luma = scratch("luma_of_pairs", height, half_width * 2)
        cv2.extractChannel(pairs.reshape(height, half_width * 2, 2), 0, luma)
        chroma: tuple[Array, ...] = ()
        if spec.color != "gray":
            chroma = (scratch("chroma_of_pairs", height, half_width, 2),)
            cv2.mixChannels([pairs], [chroma[0]], [1, 0, 3, 1])
        Yuv(luma, chroma, self.matrix, self.limited).write(placement, spec, window)


def decode_yuyv(header: pb.FrameHeader, pixels: memoryview) -> Yuyv:
    """YUYV: nothing is copied."""
    pairs = rows(header, pixels, header.height).reshape(header.height, header.width // 2, 4)
    return Yuyv(pairs, matrix_of(header), header.color_range != pb.COLOR_RANGE_FULL)
