"""Access units of a video file as they lie in it: nothing is decoded and encoded again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from client.encode_video import VideoEncoding, import_av
from client.errors import SourceError
from client.frames import Image

_CODECS: dict[str, VideoEncoding] = {"h264": "h264", "hevc": "h265"}
_TO_ANNEX_B = {"h264": "h264_mp4toannexb", "h265": "hevc_mp4toannexb"}


@dataclass(frozen=True)
class AccessUnit:
    """One of them.

    Attributes:
        pixels: (N,) bytes with start codes (Annex B).
        capture_offset_ns: When its picture was captured, from when it is sent; 0 or less. Where pictures are
            reordered (B-frames), a picture is sent some periods after it was captured.
    """

    pixels: Image
    capture_offset_ns: int


def codec_of(path: Path) -> VideoEncoding | None:
    """How a video file is encoded, if in a way that access units of it can be sent.

    Raises:
        FrameInvalid: PyAV is not installed.
    """
    av = import_av("h264")
    try:
        with av.open(str(path)) as container:
            return _CODECS.get(container.streams.video[0].codec_context.name)
    except (av.FFmpegError, IndexError):
        return None


def access_units(path: Path, encoding: VideoEncoding) -> Iterator[AccessUnit]:
    """The access units of a file, in decoding order.

    Args:
        path: A file whose `codec_of` is `encoding`.
        encoding: `h264` or `h265`.

    Raises:
        SourceError: The file is damaged.
    """
    av = import_av(encoding)
    from av.bitstream import BitStreamFilterContext  # noqa: PLC0415 - part of PyAV, imported above

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            to_annex_b = BitStreamFilterContext(_TO_ANNEX_B[encoding], stream)
            latest_ns = 0
            for packet in container.demux(stream):
                for unit in to_annex_b.filter(packet if packet.size else None):
                    ahead_ns = _ahead_ns(unit)
                    latest_ns = max(latest_ns, ahead_ns)
                    yield AccessUnit(np.frombuffer(bytes(unit), np.uint8), ahead_ns - latest_ns)
    except av.FFmpegError as error:
        raise SourceError(f"{path} cannot be read: {error}") from error


def _ahead_ns(packet: Any) -> int:  # noqa: ANN401 - PyAV's
    """From when an access unit is decoded to when its picture is shown."""
    if packet.pts is None or packet.dts is None:
        return 0
    ticks: Fraction = (packet.pts - packet.dts) * packet.time_base
    return round(ticks * 10**9)
