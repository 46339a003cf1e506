"""Images to access units of H.264 or H.265, by PyAV, which the extra `video` installs."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Literal

import numpy as np

from client.errors import FrameInvalid
from client.frames import Image

VideoEncoding = Literal["h264", "h265"]
VIDEO_ENCODINGS: tuple[VideoEncoding, ...] = ("h264", "h265")

KEYFRAME_EVERY = 30
"""Frames from one keyframe (IDR) to the next: after a loss the server waits for the next one."""

_LIBRARIES = {"h264": "libx264", "h265": "libx265"}
_OPTIONS = {
    "h264": {"preset": "veryfast", "tune": "zerolatency", "crf": "18"},
    "h265": {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "crf": "18",
        "x265-params": "log-level=error:repeat-headers=1",
    },
}
_LIMITED_RANGE, _BT601 = 1, 6
"""FFmpeg's AVCOL_RANGE_MPEG and AVCOL_SPC_SMPTE170M, as ITU-T H.273 numbers them."""


class VideoEncoder:
    """Encodes one camera's images in order, without delay: each image gives its access unit at once (no B-frames).

    Colours are written in BT.601, limited range, and say so. Parameter sets come with each keyframe.

    Args:
        encoding: `h264` or `h265`.
        width: Columns, even.
        height: Rows, even.
        keyframe_every: Frames from one keyframe to the next.

    Raises:
        FrameInvalid: The size is odd, or PyAV or its encoder is missing.
    """

    def __init__(self, encoding: VideoEncoding, width: int, height: int, keyframe_every: int = KEYFRAME_EVERY) -> None:
        if width % 2 or height % 2:
            raise FrameInvalid(f"{encoding} needs even sizes, the image is {width}x{height}")
        self._av = import_av(encoding)
        try:
            encoder = self._av.CodecContext.create(_LIBRARIES[encoding], "w")
        except self._av.FFmpegError as error:
            raise FrameInvalid(f"this PyAV cannot encode {encoding}: {error}\n  → send jpeg") from error
        encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
        encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
        encoder.gop_size, encoder.max_b_frames, encoder.thread_count = keyframe_every, 0, 1
        encoder.color_range, encoder.colorspace = _LIMITED_RANGE, _BT601
        encoder.options = _OPTIONS[encoding]
        self._encoder = encoder
        self._shape = (height, width, 3)
        self._count = 0

    def encode(self, image: Image) -> Image:
        """The next image's access unit.

        Args:
            image: (H, W, 3) RGB, `uint8`.

        Returns:
            (N,) bytes with start codes (Annex B).

        Raises:
            FrameInvalid: It is of another size or type.
        """
        if image.dtype != np.uint8 or image.shape != self._shape:
            raise FrameInvalid(f"this encoder takes {self._shape} uint8, the image is {image.shape} {image.dtype}")
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=_BT601, dst_color_range=_LIMITED_RANGE)
        frame.pts = self._count
        self._count += 1
        return np.frombuffer(b"".join(bytes(packet) for packet in self._encoder.encode(frame)), np.uint8)


def import_av(encoding: str) -> Any:  # noqa: ANN401 - a module that may be missing
    """PyAV.

    Raises:
        FrameInvalid: It is not installed.
    """
    try:
        import av  # noqa: PLC0415 - 100 MB that only video needs
    except ImportError as error:
        raise FrameInvalid(
            f"{encoding} needs PyAV: {error}\n  → pip install 'monocoque[video]', or send jpeg"
        ) from error
    return av
