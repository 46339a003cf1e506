"""Rows of raw frames as arrays: views into the bytes that came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protos.monocoque.v1 import camera_pb2 as pb
from server.stream.layout import row_bytes


def rows(header: pb.FrameHeader, pixels: memoryview, count: int, first: int = 0) -> npt.NDArray[np.uint8]:
    """Rows of one plane, without their padding: `(count, bytes of a row)`.

    Args:
        header: The frame's, which `layout.check_frame` found in order.
        pixels: The frame's bytes.
        count: How many rows.
        first: The first of them, counted over all planes.
    """
    row = row_bytes(header.encoding, header.width)
    stride = header.stride_bytes or row
    plane = np.frombuffer(pixels, np.uint8, count * stride, first * stride).reshape(count, stride)
    return plane if stride == row else plane[:, :row]


def wide(samples: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Rows of little-endian 16-bit samples: `(H, 2 * W)` bytes to `(H, W)`."""
    if samples.strides[0] % 2:  # rows that begin on odd bytes
        samples = np.ascontiguousarray(samples)
    return samples.view("<u2")
