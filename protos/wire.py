"""Frames on the wire without a copy through protobuf.

A frame is a `StreamFramesRequest` whose last field is its pixel bytes. That is an ordinary protobuf message, so
any gRPC client may send it with its own generated code. Here it is laid out by hand: the header is serialized,
the pixels follow (one copy in the client, none in the server).

Encoding: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from google.protobuf.message import DecodeError

from protos.monocoque.v1.stream_pb2 import StreamFramesRequest

_PIXELS_TAG = (StreamFramesRequest.PIXELS_FIELD_NUMBER << 3) | 2
_LENGTH_DELIMITED = 2


def join(request: StreamFramesRequest, pixels: bytes | bytearray | memoryview) -> bytes:
    """A frame's message: everything but the pixels serialized, then the pixels.

    Args:
        request: With `frame` set and `pixels` empty.
        pixels: The frame's bytes.
    """
    head = request.SerializeToString()
    return b"".join((head, bytes((_PIXELS_TAG,)), varint(len(memoryview(pixels).cast("B"))), pixels))


def split(message: bytes) -> tuple[StreamFramesRequest, memoryview]:
    """Take a message apart.

    Returns:
        The request without its pixels, and the pixels as a view into `message` (empty where there are none).

    Raises:
        DecodeError: It is no `StreamFramesRequest`, or is cut off.
    """
    view = memoryview(message)
    head_bytes, pixels = _find_pixels(view)
    return StreamFramesRequest.FromString(bytes(view[:head_bytes])), pixels


def _find_pixels(view: memoryview) -> tuple[int, memoryview]:
    """Where the header ends, and the pixels. Only the tags of top-level fields are read."""
    position = 0
    while position < len(view):
        start = position
        tag, position = read_varint(view, position)
        if tag & 7 != _LENGTH_DELIMITED:
            raise DecodeError(f"field {tag >> 3} at byte {start} is not length-delimited")
        length, position = read_varint(view, position)
        if position + length > len(view):
            raise DecodeError(f"field {tag >> 3} ends at byte {position + length}, the message has {len(view)}")
        if tag == _PIXELS_TAG:
            if position + length != len(view):
                raise DecodeError(f"{len(view) - position - length} bytes follow the pixels, which must come last")
            return start, view[position:]
        position += length
    return len(view), view[:0]


def varint(value: int) -> bytes:
    """A number of at least 0, seven bits a byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """The number at a position, and where it ends.

    Raises:
        DecodeError: It is cut off, or longer than 64 bits need.
    """
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(view):
            raise DecodeError(f"cut off at byte {position}")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise DecodeError(f"a varint at byte {position - 10} is too long")
