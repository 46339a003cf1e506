"""RGB8, BGR8, GRAY8 and GRAY16: samples side by side, as they are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import write
from engine.manifest import Preprocessing
from engine.preprocess import Placement
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.buffers import scratch
from server.decode.planes import rows, wide
from server.decode.samples import Interleaved

TO_8_BITS = 255 / 65535


def decode_color(header: pb.FrameHeader, pixels: memoryview) -> Interleaved:
    """RGB8 and BGR8: nothing is copied."""
    image = rows(header, pixels, header.height).reshape(header.height, header.width, 3)
    order = "rgb" if header.encoding == pb.ENCODING_RGB8 else "bgr"
    return Interleaved(image, order, header.color_range == pb.COLOR_RANGE_LIMITED)  # type: ignore[arg-type]


def decode_gray8(header: pb.FrameHeader, pixels: memoryview) -> Interleaved:
    """GRAY8: nothing is copied."""
    return Interleaved(rows(header, pixels, header.height), "gray", header.color_range == pb.COLOR_RANGE_LIMITED)


@dataclass(frozen=True)
class Gray16:
    """Grey samples of 16 bits.

    Attributes:
        image: `(H, W)`.
        limited: Whether they are in limited range.
    """

    image: npt.NDArray[np.uint16]
    limited: bool

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return self.image.nbytes

    def write(self, placement: Placement, spec: Preprocessing, window: npt.NDArray[np.uint8]) -> None:
        """Bring them to 8 bits, then on as any grey image."""
        narrow = scratch("narrow", *self.image.shape)
        write(narrow, cv2.convertScaleAbs(self.image, dst=narrow, alpha=TO_8_BITS))
        Interleaved(narrow, "gray", self.limited).write(placement, spec, window)


def decode_gray16(header: pb.FrameHeader, pixels: memoryview) -> Gray16:
    """GRAY16: nothing is copied."""
    return Gray16(wide(rows(header, pixels, header.height)), header.color_range == pb.COLOR_RANGE_LIMITED)
