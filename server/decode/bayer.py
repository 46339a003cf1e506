"""Bayer mosaics: red, green over green, blue. Demosaicing is bilinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from engine.area import write
from engine.manifest import Preprocessing
from engine.preprocess import Placement, resize
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.buffers import scratch
from server.decode.color import change_range
from server.decode.planes import rows, wide
from server.stream.layout import SMALLEST_MOSAIC

Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Bayer:
    """A mosaic.

    Attributes:
        samples: `(H, W)` of 8 bits, `(H, W)` of 16 bits, or `(H, W / 2, 3)`: two samples of 12 bits in three bytes.
        largest: The largest value of a 16-bit sample.
        limited: Whether they are in limited range.
    """

    samples: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    largest: int
    limited: bool

    @property
    def nbytes(self) -> int:
        """How much memory they take."""
        return self.samples.nbytes

    def write(self, placement: Placement, spec: Preprocessing, window: Array) -> None:
        """Bring the samples to 8 bits, interpolate the missing colours, resize."""
        mosaic = self._narrow()
        part = placement.part(mosaic)  # crops begin on even pixels, so its corner is red too
        code: Any = getattr(cv2, f"COLOR_BayerRGGB2{spec.color.upper()}")
        if part.shape == window.shape[:2] and min(part.shape) >= SMALLEST_MOSAIC:
            write(window, cv2.cvtColor(part, code, dst=window))
        else:
            source = part if min(part.shape) >= SMALLEST_MOSAIC else mosaic
            image = scratch("demosaiced", *source.shape, *window.shape[2:])
            write(image, cv2.cvtColor(source, code, dst=image))
            resize(image if source is part else placement.part(image), window, spec.kernel)
        change_range(window, self.limited, spec.value_range)

    def _narrow(self) -> Array:
        """The mosaic in 8 bits: `(H, W)`."""
        if self.samples.ndim == 3:
            narrow = scratch("narrow", *self.samples.shape[:2], 2)
            cv2.mixChannels([self.samples], [narrow], [0, 0, 1, 1])  # the high bits of both
            return narrow.reshape(self.samples.shape[0], -1)
        if self.samples.dtype == np.uint8:
            return np.asarray(self.samples, np.uint8)
        narrow = scratch("narrow", *self.samples.shape)
        write(narrow, cv2.convertScaleAbs(self.samples, dst=narrow, alpha=255 / self.largest))
        return narrow


def decode_bayer(header: pb.FrameHeader, pixels: memoryview) -> Bayer:
    """Any of the Bayer encodings: nothing is copied."""
    limited = header.color_range == pb.COLOR_RANGE_LIMITED
    samples = rows(header, pixels, header.height)
    if header.encoding == pb.ENCODING_BAYER_RGGB8:
        return Bayer(samples, 255, limited)
    if header.encoding == pb.ENCODING_BAYER_RGGB12P:
        return Bayer(samples.reshape(header.height, header.width // 2, 3), 4095, limited)
    return Bayer(wide(samples), 4095 if header.encoding == pb.ENCODING_BAYER_RGGB12 else 65535, limited)
