"""How many bytes a frame takes, and whether its header, its bytes and its camera agree. Nothing is decoded here."""

from __future__ import annotations

from protos.monocoque.v1 import camera_pb2 as pb
from server.stream.image_file import file_size

FILE_ENCODINGS: frozenset[int] = frozenset({pb.ENCODING_JPEG, pb.ENCODING_PNG})
"""Image files: as long as they are; their real size is in their own header."""
VIDEO_ENCODINGS: frozenset[int] = frozenset({pb.ENCODING_H264, pb.ENCODING_H265})
"""Access units: as long as they are, and decoded in order; their real size is in their parameter sets."""

BITS_PER_PIXEL: dict[int, int] = {
    pb.ENCODING_RGB8: 24,
    pb.ENCODING_BGR8: 24,
    pb.ENCODING_GRAY8: 8,
    pb.ENCODING_GRAY16: 16,
    pb.ENCODING_NV12: 8,
    pb.ENCODING_YUYV: 16,
    pb.ENCODING_BAYER_RGGB8: 8,
    pb.ENCODING_BAYER_RGGB12: 16,
    pb.ENCODING_BAYER_RGGB12P: 12,
    pb.ENCODING_BAYER_RGGB16: 16,
}
"""Of the first plane."""
RAW_ENCODINGS = frozenset(BITS_PER_PIXEL)
ENCODINGS = FILE_ENCODINGS | VIDEO_ENCODINGS | RAW_ENCODINGS
_NAMES: dict[int, str] = {number: name.removeprefix("ENCODING_") for name, number in pb.Encoding.items()}
_COLOR_MATRICES = frozenset(pb.ColorMatrix.values())
_COLOR_RANGES = frozenset(pb.ColorRange.values())
_BAYER = frozenset(
    {pb.ENCODING_BAYER_RGGB8, pb.ENCODING_BAYER_RGGB12, pb.ENCODING_BAYER_RGGB12P, pb.ENCODING_BAYER_RGGB16}
)
_PAIRS_COLUMNS = _BAYER | {pb.ENCODING_NV12, pb.ENCODING_YUYV}
_PAIRS_ROWS = _BAYER | {pb.ENCODING_NV12}
SMALLEST_MOSAIC = 4
"""Pixels of a side that interpolating a mosaic needs."""
ROW_ALIGNMENT_BYTES = 256
"""Padding that the frame limit leaves room for; no camera driver aligns rows to more."""


def encoding_name(encoding: int) -> str:
    """`JPEG`, or the number of an encoding that is not known."""
    return _NAMES.get(encoding) or str(encoding)


def row_bytes(encoding: int, width: int) -> int:
    """Bytes of one row of the first plane, without padding."""
    return BITS_PER_PIXEL[encoding] * width // 8


def raw_bytes(encoding: int, width: int, height: int, stride_bytes: int) -> int:
    """Exact bytes of a raw frame; every row of every plane is `stride_bytes` long (0: no padding)."""
    rows = height + height // 2 if encoding == pb.ENCODING_NV12 else height
    return (stride_bytes or row_bytes(encoding, width)) * rows


def largest_frame_bytes(width: int, height: int) -> int:
    """Bytes of the largest frame of a geometry: three bytes a pixel, rows padded."""
    return -(-3 * width // ROW_ALIGNMENT_BYTES) * ROW_ALIGNMENT_BYTES * height


def check_geometry(encoding: int, width: int, height: int) -> str | None:
    """Why an encoding cannot have this size; None when it can."""
    if encoding not in ENCODINGS:
        names = ", ".join(encoding_name(value) for value in sorted(ENCODINGS))
        return f"encoding {encoding_name(encoding)} is not known; known are {names}"
    if width == 0 or height == 0:
        return f"{width}x{height} has no pixels"
    if encoding in _PAIRS_COLUMNS and width % 2:
        return f"{encoding_name(encoding)} pairs columns, so a width of {width} must be even"
    if encoding in _PAIRS_ROWS and height % 2:
        return f"{encoding_name(encoding)} pairs rows, so a height of {height} must be even"
    if encoding in _BAYER and min(width, height) < SMALLEST_MOSAIC:
        return f"a mosaic of {width}x{height} is too small; {SMALLEST_MOSAIC}x{SMALLEST_MOSAIC} is the smallest"
    return None


def check_frame(header: pb.FrameHeader, pixel_bytes: memoryview, camera: pb.Camera, max_bytes: int) -> str | None:
    """Why a frame is refused; None when it may be decoded.

    Args:
        header: The frame's header.
        pixel_bytes: Its bytes.
        camera: The camera as the stream declared it.
        max_bytes: Largest frame accepted.
    """
    if header.encoding != camera.encoding:
        return (
            f"camera {camera.id} was opened with {encoding_name(camera.encoding)}, "
            f"this frame is {encoding_name(header.encoding)}"
        )
    if (header.width, header.height) != (camera.width, camera.height):
        return (
            f"camera {camera.id} was opened with {camera.width}x{camera.height}, "
            f"this frame is {header.width}x{header.height}"
        )
    if header.size_bytes not in (0, len(pixel_bytes)):
        return f"size_bytes is {header.size_bytes}, {len(pixel_bytes)} bytes of pixels came"
    if header.color_matrix not in _COLOR_MATRICES or header.color_range not in _COLOR_RANGES:
        return f"color_matrix {header.color_matrix} or color_range {header.color_range} is not known"
    if len(pixel_bytes) > max_bytes:
        return (
            f"{len(pixel_bytes)} bytes of pixels, at most {max_bytes} are accepted; start the server with --max-frame"
        )
    if header.encoding in FILE_ENCODINGS:
        return _check_file(header, pixel_bytes)
    if header.encoding in VIDEO_ENCODINGS:
        return None if len(pixel_bytes) else f"the {encoding_name(header.encoding)} access unit is empty"
    return _check_raw(header, pixel_bytes)


def _check_raw(header: pb.FrameHeader, pixel_bytes: memoryview) -> str | None:
    name = encoding_name(header.encoding)
    row = row_bytes(header.encoding, header.width)
    if header.stride_bytes and header.stride_bytes < row:
        return f"stride_bytes is {header.stride_bytes}, a row of {header.width} {name} pixels takes {row}"
    needed = raw_bytes(header.encoding, header.width, header.height, header.stride_bytes)
    if len(pixel_bytes) != needed:
        stride = f" with rows of {header.stride_bytes} bytes" if header.stride_bytes else ""
        return f"{header.width}x{header.height} {name}{stride} takes {needed} bytes, {len(pixel_bytes)} came"
    return None


def _check_file(header: pb.FrameHeader, pixel_bytes: memoryview) -> str | None:
    name = encoding_name(header.encoding)
    size = file_size(pixel_bytes, header.encoding)
    if isinstance(size, str):
        return f"not a whole {name} file of {len(pixel_bytes)} bytes: {size}"
    if size != (header.width, header.height):
        return f"the {name} file is {size[0]}x{size[1]}, its frame says {header.width}x{header.height}"
    return None
