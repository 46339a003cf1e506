"""Large frames come in pieces. They are put together in memory that is used again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protos.monocoque.v1 import stream_pb2 as pb
from server.decode.buffers import Array, Buffers
from server.errors import LimitReached, RequestInvalid

PIECE_BYTES = 768 << 10
"""One raw 1080p frame there and back took 1.71 times a bare echo as one message, 1.21 to 1.30 in pieces of this size: a
piece is copied from gRPC's buffers while it is in the core's cache, and while the client copies the next. From 0.5 to
1.5 MB the difference is small; below, the messages cost what the copies gain."""


@dataclass(frozen=True)
class Whole:
    """A frame whose last piece has come.

    Attributes:
        request: Its first message.
        pixels: All its bytes.
        give_back: To be called once they are not needed any more.
    """

    request: pb.StreamFramesRequest
    pixels: memoryview
    give_back: Callable[[], None]


@dataclass
class _Partial:
    request: pb.StreamFramesRequest
    buffer: Array
    size_bytes: int
    filled_bytes: int = 0


class Pieces:
    """The frame of a stream that is under way; there is one at most.

    Args:
        max_frame_bytes: Largest frame accepted.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffers = Buffers()
        self._partial: _Partial | None = None

    def check_none(self) -> None:
        """Raise `RequestInvalid` where the last frame is not whole."""
        if self._partial is not None:
            raise RequestInvalid(
                f"a frame follows {self._found(self._partial)}", remedy="send all pieces of a frame before the next one"
            )

    def begin(self, request: pb.StreamFramesRequest, pixels: memoryview) -> None:
        """Take the first piece of a frame; `check_none` first.

        Args:
            request: With a header whose `size_bytes` is more than this piece has.
            pixels: The piece.

        Raises:
            LimitReached: The frame is larger than any that is accepted.
        """
        size_bytes = request.frame.size_bytes
        if size_bytes > self._max_frame_bytes:
            raise LimitReached(
                f"frame {request.frame.sequence} of camera {request.frame.camera_id[:80]!r} has {size_bytes} bytes, "
                f"at most {self._max_frame_bytes} are accepted",
                remedy="start the server with a larger --max-frame, or send smaller frames",
            )
        self._partial = _Partial(request, self._buffers.take(size_bytes), size_bytes)
        self.add(pixels)

    def add(self, pixels: memoryview) -> Whole | None:
        """Take another piece; returns the frame once it is whole.

        Raises:
            RequestInvalid: No frame is under way, or this is more than is missing of it.
        """
        partial = self._partial
        if partial is None or not pixels:
            raise RequestInvalid(
                "the message is empty" if not pixels else f"{len(pixels)} bytes of pixels belong to no frame",
                remedy="send a frame, with its size_bytes where it comes in pieces, or a clock_probe",
            )
        end = partial.filled_bytes + len(pixels)
        if end > partial.size_bytes:
            raise RequestInvalid(
                f"{len(pixels)} more bytes came of {self._found(partial)}",
                remedy="let size_bytes be those of all pieces",
            )
        partial.buffer.data[partial.filled_bytes : end] = pixels
        partial.filled_bytes = end
        if end < partial.size_bytes:
            return None
        self._partial = None
        return Whole(
            partial.request, partial.buffer.data[:end].toreadonly(), lambda: self._buffers.give(partial.buffer)
        )

    def close(self) -> None:
        """Let the memory go, and what frames still hold once they give it back: the stream has ended."""
        self._partial = None
        self._buffers.close()

    @staticmethod
    def _found(partial: _Partial) -> str:
        header = partial.request.frame
        return (
            f"frame {header.sequence} of camera {header.camera_id[:80]!r}, of which {partial.filled_bytes} of "
            f"{partial.size_bytes} bytes have come"
        )
