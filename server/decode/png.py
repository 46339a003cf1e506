"""PNG files, ISO/IEC 15948.

Only the chunks that make up the picture reach the decoder: profiles, texts and the later frames of animations may be
compressed bombs of their own, and none of them changes a pixel here. Before it is decoded, the picture is inflated once
and thrown away piece by piece, since a stream that goes on behind the last row would be inflated to its end: a megabyte
of it takes seconds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import cv2
import numpy as np

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.color import Color
from server.decode.errors import DecodeFailed
from server.decode.samples import Interleaved

MAX_CHUNKS = 100_000
"""Some encoders write an IDAT chunk for every few kilobytes."""

_FLAGS = {"rgb": cv2.IMREAD_COLOR_RGB, "bgr": cv2.IMREAD_COLOR_BGR, "gray": cv2.IMREAD_GRAYSCALE}
_SIGNATURE_BYTES = 8
_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type, 11.2.2."""
_PIECE_BYTES = 1 << 18


def decode_png(header: pb.FrameHeader, pixels: memoryview, color: Color) -> Interleaved:
    """Decode a PNG file: palettes are looked up, 16 bits brought to 8, transparency and later frames left out.

    Raises:
        DecodeFailed: It is damaged, or of another size.
    """
    picture = _picture(pixels)
    try:
        # The orientation tag is for people who hold a camera sideways; intrinsics and boxes are in stored pixels.
        image = cv2.imdecode(np.frombuffer(picture, np.uint8), _FLAGS[color] | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise DecodeFailed(f"the PNG file cannot be decoded: {error.err or error}") from None
    if image is None:
        raise DecodeFailed(f"the PNG file of {len(pixels)} bytes cannot be decoded")
    if image.shape[:2] != (header.height, header.width):
        raise DecodeFailed(
            f"the PNG file decodes to {image.shape[1]}x{image.shape[0]}, not {header.width}x{header.height}"
        )
    return Interleaved(np.asarray(image, np.uint8), color, header.color_range == pb.COLOR_RANGE_LIMITED)


def _picture(data: memoryview) -> bytes:
    """The file with nothing but its first picture, found whole.

    Raises:
        DecodeFailed: It is not.
    """
    kept: list[memoryview] = []
    compressed: list[memoryview] = []
    for kind, chunk in _chunks(data):
        if kind in _KEPT:
            kept.append(chunk)
        if kind == b"IDAT":
            compressed.append(chunk[8:-4])
        if kind == b"IEND":
            break
    else:
        raise DecodeFailed("the PNG file cannot be decoded: it has no IEND chunk")
    if len(data) < 33 or bytes(data[12:16]) != b"IHDR":
        raise DecodeFailed("the PNG file cannot be decoded: it does not begin with its header")
    _check_inflated(compressed, _raw_bytes(data))
    return b"".join([data[:_SIGNATURE_BYTES], *kept])


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Type of each chunk, and all of it: length, type, data, checksum."""
    at = _SIGNATURE_BYTES
    for _ in range(MAX_CHUNKS):
        if at == len(data):
            return
        if at + 12 > len(data):
            raise DecodeFailed(f"the PNG file cannot be decoded: it is cut off at byte {len(data)}")
        end = at + 12 + struct.unpack(">I", data[at : at + 4])[0]
        kind = bytes(data[at + 4 : at + 8])
        if end > len(data):
            raise DecodeFailed(
                f"the PNG file cannot be decoded: its {kind.decode(errors='replace')} chunk ends behind the file"
            )
        if kind in _KEPT and zlib.crc32(data[at + 4 : end - 4]) != struct.unpack(">I", data[end - 4 : end])[0]:
            raise DecodeFailed(f"the PNG file cannot be decoded: the checksum of its {kind.decode()} chunk is wrong")
        yield kind, data[at:end]
        at = end
    raise DecodeFailed(f"the PNG file has more than {MAX_CHUNKS} chunks")


def _raw_bytes(data: memoryview) -> int:
    """Bytes of all rows at most, with their filter types; interlacing has up to twice as many rows."""
    width, height, depth, color_type = struct.unpack(">IIBB", data[16:26])
    if color_type not in _CHANNELS:
        raise DecodeFailed(f"the PNG file cannot be decoded: colour type {color_type} is not known")
    return int(height * (-(-width * depth * _CHANNELS[color_type] // 8) + 4) + 64)


def _check_inflated(compressed: list[memoryview], most_bytes: int) -> None:
    inflate = zlib.decompressobj()
    inflated = 0
    try:
        for piece in compressed:
            rest: bytes | memoryview = piece
            while len(rest):
                inflated += len(inflate.decompress(rest, _PIECE_BYTES))
                rest = inflate.unconsumed_tail
                if inflated > most_bytes:
                    raise DecodeFailed(
                        f"the PNG file inflates to more than the {most_bytes} bytes that its size allows"
                    )
    except zlib.error as error:
        raise DecodeFailed(f"the PNG file cannot be decoded: {error}") from None
    if not inflate.eof:
        raise DecodeFailed("the PNG file cannot be decoded: its picture is cut off")
