"""Frames on the wire without a copy through protobuf.

A frame is a `StreamFramesRequest` whose last field is its pixel bytes. That is an ordinary protobuf message, so
any gRPC client may send it with its own generated code. Here it is laid out by hand: the header is serialized,
the pixels follow (one copy in the client, none in the server).

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from protos.monocoque.v1.stream_pb2 import StreamFramesRequest

_PIXELS_TAG = (StreamFramesRequest.PIXELS_FIELD_NUMBER << 3) | 2
_LENGTH_DELIMITED = 2
_MORE = StreamFramesRequest()


def join(request: StreamFramesRequest, pixels: bytes | bytearray | memoryview) -> bytes:
    """A frame's message: everything but the pixels serialized, then the pixels.

    Args:
        request: With `frame` set and `pixels` empty.
        pixels: The frame's bytes.
    """
    head = request.SerializeToString()
    return b"".join((head, bytes((_PIXELS_TAG,)), varint(len(memoryview(pixels).cast("B"))), pixels))


def pieces(request: StreamFramesRequest, pixels: memoryview, piece_bytes: int) -> Iterator[bytes]:
    """A frame's messages: one, or several where it is larger than a piece. Each is copied when its turn comes.

    Args:
        request: With `frame` set and `pixels` empty.
        pixels: The frame's bytes, as they are in memory.
        piece_bytes: Pixels of a message; 0: all of them.
    """
    if not 0 < piece_bytes < len(pixels):
        yield join(request, pixels)
        return
    request.frame.size_bytes = len(pixels)
    yield join(request, pixels[:piece_bytes])
    for start in range(piece_bytes, len(pixels), piece_bytes):
        yield join(_MORE, pixels[start : start + piece_bytes])


def split(message: bytes) -> tuple[StreamFramesRequest, memoryview]:
    """Take a message apart.

    Returns:
        The request without its pixels, and the pixels as a view into `message` (empty where there are none).

    Raises:
        DecodeError: It is no `StreamFramesRequest`, or is cut off.
    """
    head_bytes, first_pixel = _find_pixels(message)
    return StreamFramesRequest.FromString(message[:head_bytes]), memoryview(message)[first_pixel:]


def _find_pixels(message: bytes) -> tuple[int, int]:
    """Where the header ends, and where the pixels begin. Only the tags of top-level fields are read."""
    position, end = 0, len(message)
    while position < end:
        start = position
        tag, position = read_varint(message, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise DecodeError(f"field {tag >> 3} at byte {start} is not length-delimited")
        length, position = read_varint(message, position)
        if position + length > end:
            raise DecodeError(f"field {tag >> 3} ends at byte {position + length}, the message has {end}")
        if tag == _PIXELS_TAG:
            if position + length != end:
                raise DecodeError(f"{end - position - length} bytes follow the pixels, which must come last")
            return start, position
        position += length
    return end, end


def varint(value: int) -> bytes:
    """A number of at least 0, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(message: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        DecodeError: It is cut off, or longer than 64 bits need.
    """
    value = shift = 0
    try:
        while shift < 64:
            byte = message[position]
            position += 1
            if byte < 0x80:
                return value | byte << shift, position
            value |= (byte & 0x7F) << shift
            shift += 7
    except IndexError:
        raise DecodeError(f"cut off at byte {position}") from None
    raise DecodeError(f"a varint at byte {position - 10} is too long")
