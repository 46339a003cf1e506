"""From the bytes of a frame to the network input; each encoding family in a file of its own.

`decode` undoes the compression, and `Decoded.write_into` does the rest: it resizes, brings colours into the order and
range that the network expects, and writes the result where the engine reads it. Both may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.manifest import Preprocessing
from engine.preprocess import place
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.bayer import decode_bayer
from server.decode.errors import DecodeFailed
from server.decode.jpeg import decode_jpeg
from server.decode.packed import decode_color, decode_gray8, decode_gray16
from server.decode.png import decode_png
from server.decode.samples import Decoded, Samples
from server.decode.yuv import decode_nv12, decode_yuyv

__all__ = ["DecodeFailed", "Decoded", "Samples", "decode"]

_RAW: dict[int, Callable[[pb.FrameHeader, memoryview], Samples]] = {
    pb.ENCODING_RGB8: decode_color,
    pb.ENCODING_BGR8: decode_color,
    pb.ENCODING_GRAY8: decode_gray8,
    pb.ENCODING_GRAY16: decode_gray16,
    pb.ENCODING_NV12: decode_nv12,
    pb.ENCODING_YUYV: decode_yuyv,
    pb.ENCODING_BAYER_RGGB8: decode_bayer,
    pb.ENCODING_BAYER_RGGB12: decode_bayer,
    pb.ENCODING_BAYER_RGGB12P: decode_bayer,
    pb.ENCODING_BAYER_RGGB16: decode_bayer,
}


def decode(header: pb.FrameHeader, pixels: memoryview, spec: Preprocessing, picture: Samples | None = None) -> Decoded:
    """Decode a frame that `layout.check_frame` found in order.

    Args:
        header: The frame's header.
        pixels: Its bytes. Raw encodings are not copied: keep them until `Decoded.write_into` has returned.
        spec: The bundle's preprocessing.
        picture: What the camera's video decoder made of its access unit; None for the other encodings.

    Raises:
        DecodeFailed: It cannot be decoded; the message says why.
    """
    placement = place(header.width, header.height, spec)
    if picture is not None:
        return Decoded(picture, placement, spec)
    if header.encoding == pb.ENCODING_JPEG:
        return decode_jpeg(header, pixels, placement, spec)
    if header.encoding == pb.ENCODING_PNG:
        return Decoded(decode_png(header, pixels, spec.color), placement, spec)
    return Decoded(_RAW[header.encoding](header, pixels), placement, spec)
