"""Access units for tests, made with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

from protos.monocoque.v1 import camera_pb2 as pb

WIDTH, HEIGHT = 64, 48
_CODECS = {pb.ENCODING_H264: "libx264", pb.ENCODING_H265: "libx265"}


def shade(number: int) -> int:
    """Grey level of a picture by its number in the order of capture."""
    return 20 + 12 * (number % 18)


def video(
    encoding: int,
    frames: int,
    *,
    bframes: int = 0,
    keyframe_every: int = 6,
    width: int = WIDTH,
    height: int = HEIGHT,
    pixel_format: str = "yuv420p",
    limited: bool = True,
    noise: float = 0.0,
) -> list[tuple[int, bytes]]:
    """Access units in decoding order, each with the number of its picture.

    Each picture is grey, of its `shade`, and the left half is red in those of an even number.
    """
    codec: Any = av.CodecContext.create(_CODECS[pb.Encoding.ValueType(encoding)], "w")
    codec.width, codec.height, codec.pix_fmt = width, height, pixel_format
    codec.time_base, codec.framerate = Fraction(1, 30), Fraction(30)
    codec.gop_size, codec.max_b_frames, codec.thread_count = keyframe_every, bframes, 1
    codec.color_range, codec.colorspace = 1 if limited else 2, 6
    quiet = "log-level=error:repeat-headers=1:open-gop=0:scenecut=0"
    codec.options = {"x265-params": quiet} if encoding == pb.ENCODING_H265 else {"x264-params": "open-gop=0:scenecut=0"}
    random = np.random.default_rng(0)
    packets: list[Any] = []
    for number in range(frames):
        image = np.full((height, width, 3), shade(number), np.float32)
        image += random.normal(0, noise, image.shape)
        pixels = np.clip(image, 0, 255).astype(np.uint8)
        picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        picture = picture.reformat(format=pixel_format, dst_colorspace=6, dst_color_range=codec.color_range)
        picture.pts = number
        packets += codec.encode(picture)
    packets += codec.encode(None)
    return [(packet.pts, bytes(packet)) for packet in packets]


def headers(encoding: int, sequences: Sequence[int], **fields: Any) -> list[pb.FrameHeader]:
    fields = {"width": WIDTH, "height": HEIGHT} | fields
    return [pb.FrameHeader(encoding=encoding, sequence=number, **fields) for number in sequences]  # type: ignore[arg-type]
