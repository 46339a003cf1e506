"""H.264 and H.265: one decoder per camera, since each picture builds on those before it.

Decoding is FFmpeg's, by PyAV, which the extra `video` installs.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.bitstream import BitstreamInvalid, PictureSize, inspect
from server.decode.color import matrix_of
from server.decode.samples import Interleaved, Samples, Yuv

MAX_REORDERED = 16
"""Access units that a decoder may hold back for reordering (ITU-T H.264, A.3.1; H.265, A.4.2)."""
MAX_PARAMETER_BYTES = 1 << 16
"""Of access units without a picture, which some encoders send ahead."""
CODING_PADDING = 64
"""Columns and rows beyond a picture's own that coding in blocks may add."""

_CODECS: dict[int, str] = {pb.ENCODING_H264: "h264", pb.ENCODING_H265: "hevc"}
_PLANAR = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"})
_MATRICES: dict[int, int] = {1: pb.COLOR_MATRIX_BT709, 5: pb.COLOR_MATRIX_BT601, 6: pb.COLOR_MATRIX_BT601}
"""By `matrix_coefficients`, ITU-T H.273, table 4."""
_FULL_RANGE = 2
"""FFmpeg's AVCOL_RANGE_JPEG."""


@functools.cache
def missing() -> str:
    """Why no video can be decoded here; empty where it can."""
    try:
        import av  # noqa: F401, PLC0415 - 100 MB that a server without video cameras does not load
    except ImportError as error:
        return f"PyAV is not installed here ({error})"
    return ""


@dataclass(frozen=True)
class Outcome:
    """What became of an access unit.

    Attributes:
        sequence: Of its frame.
        picture: Its samples, or None.
        status: Where there is no picture: `waiting_for_keyframe` or `failed`.
        reason: Why.
    """

    sequence: int
    picture: Samples | None
    status: str = ""
    reason: str = ""


class VideoDecoder:
    """Decodes one camera's access units in the order they were sent. One thread at a time.

    Each access unit has exactly one outcome, at once or, where pictures are reordered (B-frames), with a later one:
    pictures come out in the order they were captured.

    Args:
        camera: As its stream declared it, with a video encoding.

    Raises:
        ImportError: `missing` says why.
    """

    def __init__(self, camera: pb.Camera) -> None:
        import av  # noqa: PLC0415 - see `missing`

        self._av: Any = av
        self._camera = camera
        self._decoder = self._new_decoder()
        self._pending: dict[int, pb.FrameHeader] = {}
        """Those that have no picture yet, by their number in decoding order."""
        self._ahead = b""
        """Parameter sets that came in an access unit of their own."""
        self._fed = 0
        self._last_sequence: int | None = None
        self._waiting = "decoding begins with a keyframe (IDR)"
        self._damaged_at: int | None = None
        """Sequence of an access unit whose damage showed when its picture came out."""

    def decode(self, header: pb.FrameHeader, pixels: memoryview) -> list[Outcome]:
        """Decode the next access unit; outcomes of it, and of earlier ones.

        Args:
            header: Its header; a sequence that does not follow the last one is a loss.
            pixels: Its bytes, not needed after that.
        """
        outcomes: list[Outcome] = []
        sequence, last = header.sequence, self._last_sequence
        self._last_sequence = sequence
        if last is not None and sequence != last + 1:
            outcomes += self._restart(f"what came between access units {last} and {sequence} was lost")
        data = self._ahead + bytes(pixels)
        self._ahead = b""
        try:
            unit = inspect(data, header.encoding)
            self._check(unit.sizes)
        except BitstreamInvalid as error:
            return [*outcomes, *self._damaged(sequence, str(error))]
        if not unit.has_picture:
            if len(data) <= MAX_PARAMETER_BYTES:
                self._ahead = data
            return [*outcomes, Outcome(sequence, None, "failed", "there is no picture in this access unit")]
        if self._waiting and not (unit.is_keyframe and unit.sizes):
            return [*outcomes, Outcome(sequence, None, "waiting_for_keyframe", self._waiting)]
        self._waiting = ""
        packet = self._av.Packet(data)
        packet.pts = packet.dts = self._fed
        self._pending[self._fed] = header
        self._fed += 1
        try:
            frames = self._decoder.decode(packet)
        except self._av.FFmpegError as error:
            self._pending.pop(self._fed - 1)
            return [*outcomes, *self._damaged(sequence, str(error.strerror or error))]
        outcomes += self._taken(frames)
        if self._damaged_at is not None:
            outcomes += self._restart(f"access unit {self._damaged_at} was damaged")
        while len(self._pending) > MAX_REORDERED:
            outcomes.append(_without_picture(self._pending.pop(min(self._pending))))
        return outcomes

    def flush(self) -> list[Outcome]:
        """Outcomes of everything that was held back; a keyframe must follow."""
        return self._restart("the stream was flushed")

    def _damaged(self, sequence: int, reason: str) -> list[Outcome]:
        name = pb.Encoding.Name(self._camera.encoding).removeprefix("ENCODING_")
        failed = Outcome(sequence, None, "failed", f"the {name} access unit cannot be decoded: {reason}")
        return [*self._restart(f"access unit {sequence} was damaged"), failed]

    def _restart(self, reason: str) -> list[Outcome]:
        """Take out what the decoder holds, and wait for a keyframe."""
        waiting = f"{reason}; decoding goes on with the next keyframe (IDR)"
        outcomes = []
        if self._damaged_at is None and self._pending:
            with contextlib.suppress(self._av.FFmpegError):
                outcomes = self._taken(self._decoder.decode(None))
        if self._damaged_at is not None:  # what the decoder holds builds on it
            outcomes += [
                Outcome(header.sequence, None, "waiting_for_keyframe", waiting) for header in self._pending.values()
            ]
        else:
            outcomes += [_without_picture(header) for header in self._pending.values()]
        self._pending.clear()
        self._decoder = self._new_decoder()
        self._damaged_at = None
        self._waiting = waiting
        return outcomes

    def _new_decoder(self) -> Any:  # noqa: ANN401 - PyAV is not imported where there is no video
        decoder = self._av.CodecContext.create(_CODECS[self._camera.encoding], "r")
        decoder.thread_count = 1  # more would hold pictures back, and other cameras want the cores
        limit = (self._camera.width + CODING_PADDING) * (self._camera.height + CODING_PADDING)
        decoder.options = {"err_detect": "explode+bitstream+buffer+crccheck", "max_pixels": str(limit)}
        return decoder

    def _check(self, sizes: Iterable[PictureSize]) -> None:
        width, height = self._camera.width, self._camera.height
        for size in sizes:
            if (size.width, size.height) != (width, height):
                raise BitstreamInvalid(
                    f"its pictures are {size.width}x{size.height}, the camera was opened with {width}x{height}"
                )
            if size.coded_width > width + CODING_PADDING or size.coded_height > height + CODING_PADDING:
                raise BitstreamInvalid(
                    f"pictures of {width}x{height} are cut out of {size.coded_width}x{size.coded_height}"
                )

    def _taken(self, frames: Iterable[Any]) -> list[Outcome]:
        outcomes = []
        for frame in frames:
            if frame.pts not in self._pending:
                continue  # a second picture of one access unit
            header = self._pending.pop(frame.pts)
            if self._damaged_at is not None:
                waiting = f"access unit {self._damaged_at} was damaged"
                outcomes.append(Outcome(header.sequence, None, "waiting_for_keyframe", waiting))
                continue
            if frame.is_corrupt or (frame.width, frame.height) != (header.width, header.height):
                reason = "its picture is damaged" if frame.is_corrupt else f"it gave {frame.width}x{frame.height}"
                outcomes.append(Outcome(header.sequence, None, "failed", reason))
                self._damaged_at = header.sequence
            else:
                outcomes.append(Outcome(header.sequence, _samples(frame, header)))
        return outcomes


def _without_picture(header: pb.FrameHeader) -> Outcome:
    return Outcome(header.sequence, None, "failed", "no picture came out of this access unit")


def _samples(frame: Any, header: pb.FrameHeader) -> Samples:  # noqa: ANN401 - as above
    """A picture's planes; they keep the decoder's memory for as long as they are used."""
    name = frame.format.name
    if frame.format.is_rgb:
        return Interleaved(frame.to_ndarray(format="rgb24"), "rgb")
    full = header.color_range == pb.COLOR_RANGE_FULL
    if header.color_range == pb.COLOR_RANGE_UNSPECIFIED:
        full = frame.color_range == _FULL_RANGE or name.startswith("yuvj")
    matrix = header.color_matrix or _MATRICES.get(int(frame.colorspace)) or matrix_of(header)
    if name == "gray":
        return Interleaved(_plane(frame.planes[0]), "gray", limited=not full)
    if name not in _PLANAR:
        frame = frame.reformat(format="yuv420p")  # more than 8 bits, or a layout of its own
    luma, *chroma = (_plane(plane) for plane in frame.planes)
    return Yuv(luma, chroma, matrix, limited=not full)


def _plane(plane: Any) -> npt.NDArray[np.uint8]:  # noqa: ANN401 - as above
    rows = np.frombuffer(plane, np.uint8, count=plane.line_size * plane.height).reshape(plane.height, plane.line_size)
    return rows[:, : plane.width]
