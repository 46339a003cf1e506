"""The size of an image file from its first bytes, and whether its last bytes are there, without decoding it.

A decoder allocates what the file's header claims, so the claim is checked first: a file of 100 bytes may claim
65,535 x 65,535 pixels.

JPEG: ITU-T T.81, annex B. PNG: ISO/IEC 15948, clause 5.
"""

from __future__ import annotations

import struct

from protos.monocoque.v1 import camera_pb2 as pb

MAX_SEGMENTS = 256
"""JPEG segments read before its frame header; cameras write fewer than 20, and reading must be cheap."""
TAIL_BYTES = 4096
"""Where the end of image must be found: some cameras pad their files."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Frames of baseline, extended and progressive DCT, with Huffman or arithmetic codes."""
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def file_size(data: memoryview, encoding: int) -> tuple[int, int] | str:
    """Columns and rows of an image file, or why it is none."""
    return _png_size(data) if encoding == pb.ENCODING_PNG else _jpeg_size(data)


def _png_size(data: memoryview) -> tuple[int, int] | str:
    if len(data) < 33 or bytes(data[:8]) != _PNG_SIGNATURE or bytes(data[12:16]) != b"IHDR":
        return "it does not start with a PNG signature and header"
    if b"IEND" not in bytes(data[-12:]):
        return "it is cut off before its IEND chunk"
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def _jpeg_size(data: memoryview) -> tuple[int, int] | str:
    if len(data) < 4 or bytes(data[:2]) != b"\xff\xd8":
        return "it does not start with FF D8"
    position = 2
    for _ in range(MAX_SEGMENTS):
        if position + 4 > len(data):
            return f"it is cut off in its headers, at byte {len(data)}"
        if data[position] != 0xFF:
            return f"byte {position} should begin a segment"
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte, B.1.1.2
            position += 1
            continue
        if marker in _STANDALONE:
            position += 2
            continue
        if marker in (_START_OF_SCAN, _END_OF_IMAGE):
            return "it has no frame header before its first scan"
        if marker in _START_OF_FRAME:
            if position + 9 > len(data):
                return f"it is cut off in its frame header, at byte {len(data)}"
            bits = data[position + 4]
            if marker not in _DECODED or bits != 8:
                return f"its frame (FF {marker:02X}, {bits} bits) is lossless, hierarchical or not of 8 bits"
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            if b"\xff\xd9" not in bytes(data[-TAIL_BYTES:]):
                return "it is cut off: no end of image (FF D9)"
            return width, height
        position += 2 + struct.unpack(">H", data[position + 2 : position + 4])[0]
    return f"it has no frame header in its first {MAX_SEGMENTS} segments"
