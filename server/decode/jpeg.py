"""JPEG files, decoded at a fraction of their size where the network needs no more.

libjpeg-turbo computes a half, a quarter or an eighth of the size from the low frequencies of each 8x8 block: less work
than all of it, and less to resize afterwards.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import simplejpeg

from engine.manifest import Preprocessing
from engine.preprocess import Placement
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.buffers import Buffers
from server.decode.errors import DecodeFailed
from server.decode.samples import Decoded, Interleaved

MAX_SCANS = 64
"""Each scan of a progressive file goes over the whole image, and a file of megabytes has room for 100,000 of them.
Encoders write about ten."""
PADDING_BYTES = 8
"""Some cameras pad the last scan by a few bytes; more than these before the end of image are damage."""

Array = npt.NDArray[np.uint8]
_buffers = Buffers()
_DAMAGE = re.compile(r"Corrupt JPEG data(?!: bad ICC)|Premature end|Inconsistent progression")
_PADDED = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_START_OF_SCAN = b"\xff\xda"


def decode_jpeg(header: pb.FrameHeader, pixels: memoryview, placement: Placement, spec: Preprocessing) -> Decoded:
    """Decode a JPEG file, at a fraction of its size where the placement allows.

    A file whose scans are damaged still gives an image, whose `damage` says what the decoder noticed. It cannot notice
    everything: Huffman codes fall into step again after a flipped bit, and only what is left over gives them away.

    Raises:
        DecodeFailed: There is no image in it, it is of another size, or it has too many scans.
    """
    # A marker's bytes do not occur inside a scan (ITU-T T.81, B.1.1.5), and thumbnails have few.
    if (scans := bytes(pixels).count(_START_OF_SCAN)) > MAX_SCANS:
        raise DecodeFailed(f"the JPEG file has {scans} scans, at most {MAX_SCANS} are decoded")
    divisor = reduction(header, placement, spec)
    width, height = -(-header.width // divisor), -(-header.height // divisor)
    buffer = _buffers.take(width * height * spec.channels)
    try:
        image, damage = _decode(pixels, spec.color, width, height, buffer)
        if image.shape[:2] != (height, width):
            raise DecodeFailed(
                f"the JPEG file decodes to {image.shape[1]}x{image.shape[0]}, expected were {width}x{height}"
            )
    except BaseException:
        _buffers.give(buffer)
        raise
    samples = Interleaved(
        image[..., 0] if spec.color == "gray" else image, spec.color, header.color_range == pb.COLOR_RANGE_LIMITED
    )
    return Decoded(samples, placement, spec, damage, release=lambda: _buffers.give(buffer))


def reduction(header: pb.FrameHeader, placement: Placement, spec: Preprocessing) -> int:
    """By what the sides may be divided: 1, 2, 4 or 8.

    Only the `area` kernel averages; the others pick samples of the whole image, so they get the whole image.
    """
    if spec.kernel != "area":
        return 1
    used_width, used_height = header.width, header.height
    if placement.crop is not None:
        used_width, used_height = placement.crop.width, placement.crop.height
    for divisor in (8, 4, 2):
        if used_width >= divisor * placement.width and used_height >= divisor * placement.height:
            return divisor
    return 1


def _decode(pixels: memoryview, color: str, width: int, height: int, buffer: Array) -> tuple[Array, str]:
    """The image, and what is wrong with it."""

    def decode(strict: bool) -> Array:
        return np.asarray(
            simplejpeg.decode_jpeg(
                pixels, color.upper(), min_height=height, min_width=width, buffer=buffer, strict=strict
            )
        )

    try:
        return decode(strict=True), ""
    except ValueError as error:
        warning = str(error)
    try:
        image = decode(strict=False)
    except ValueError as error:
        raise DecodeFailed(f"the JPEG file cannot be decoded: {error}") from None
    padded = _PADDED.fullmatch(warning)
    harmless = not _DAMAGE.match(warning) or (padded is not None and int(padded[1]) <= PADDING_BYTES)
    return image, "" if harmless else f"the JPEG file is damaged: {warning}"
