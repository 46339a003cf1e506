"""PNG files."""

from __future__ import annotations

import cv2
import numpy as np

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.color import Color
from server.decode.errors import DecodeFailed
from server.decode.samples import Interleaved

_FLAGS = {"rgb": cv2.IMREAD_COLOR_RGB, "bgr": cv2.IMREAD_COLOR_BGR, "gray": cv2.IMREAD_GRAYSCALE}


def decode_png(header: pb.FrameHeader, pixels: memoryview, color: Color) -> Interleaved:
    """Decode a PNG file: palettes are looked up, 16 bits brought to 8, transparency and later frames left out.

    Raises:
        DecodeFailed: It is damaged, or of another size.
    """
    try:
        # The orientation tag is for people who hold a camera sideways; intrinsics and boxes are in stored pixels.
        image = cv2.imdecode(np.frombuffer(pixels, np.uint8), _FLAGS[color] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DecodeFailed(f"the PNG file cannot be decoded: {error.err or error}") from None
    if image is None:
        raise DecodeFailed(f"the PNG file of {len(pixels)} bytes cannot be decoded")
    if image.shape[:2] != (header.height, header.width):
        raise DecodeFailed(
            f"the PNG file decodes to {image.shape[1]}x{image.shape[0]}, not {header.width}x{header.height}"
        )
    return Interleaved(np.asarray(image, np.uint8), color, header.color_range == pb.COLOR_RANGE_LIMITED)
