"""What an access unit of H.264 or H.265 says before any of it is decoded: picture sizes, and whether it is a keyframe.

A decoder allocates what a sequence parameter set claims, so the claim is checked first.

H.264: ITU-T H.264, 7.3.1, 7.3.2.1.1, annex B. H.265: ITU-T H.265, 7.3.1.2, 7.3.2.2, 7.3.3, annex B.
"""

from __future__ import annotations

from dataclasses import dataclass

from protos.monocoque.v1 import camera_pb2 as pb

MAX_UNITS = 512
"""NAL units of one access unit; encoders write a few per slice."""
MAX_SPS_BYTES = 1024

_START = b"\x00\x00\x01"
_H264_SPS, _H264_IDR = 7, frozenset({5})
_H265_SPS, _H265_IRAP = 33, frozenset(range(16, 22))
_H264_SLICES, _H265_SLICES = frozenset(range(1, 6)), frozenset(range(22))
_H264_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_CHROMA_STEPS = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}
"""Luma samples per unit of the cropping window, across and down, by `chroma_format_idc`."""


class BitstreamInvalid(Exception):
    """It is no access unit, or one that cannot be trusted."""


@dataclass(frozen=True)
class PictureSize:
    """Of a sequence parameter set.

    Attributes:
        width: Columns after cropping.
        height: Rows after cropping.
        coded_width: Columns that a decoder allocates.
        coded_height: Rows that a decoder allocates.
    """

    width: int
    height: int
    coded_width: int
    coded_height: int


@dataclass(frozen=True)
class AccessUnit:
    """What an access unit consists of.

    Attributes:
        sizes: Of its sequence parameter sets.
        is_keyframe: Whether decoding may begin here.
        has_picture: Whether there is a slice in it.
    """

    sizes: tuple[PictureSize, ...]
    is_keyframe: bool
    has_picture: bool


def inspect(data: bytes, encoding: int) -> AccessUnit:
    """Look over an access unit.

    Args:
        data: An Annex B byte stream.
        encoding: H264 or H265.

    Raises:
        BitstreamInvalid: It has no NAL units or too many, or a parameter set that cannot be read.
    """
    is_h264 = encoding == pb.ENCODING_H264
    sizes: list[PictureSize] = []
    is_keyframe = has_picture = False
    starts = _starts(data)
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        if start >= len(data):
            continue
        kind = data[start] & 0x1F if is_h264 else data[start] >> 1 & 0x3F
        if kind == (_H264_SPS if is_h264 else _H265_SPS):
            sizes.append(_size(data[start : min(end, start + MAX_SPS_BYTES)], is_h264))
        is_keyframe = is_keyframe or kind in (_H264_IDR if is_h264 else _H265_IRAP)
        has_picture = has_picture or kind in (_H264_SLICES if is_h264 else _H265_SLICES)
    return AccessUnit(tuple(sizes), is_keyframe, has_picture)


def _starts(data: bytes) -> list[int]:
    """Where NAL units begin, behind their start codes."""
    starts: list[int] = []
    at = data.find(_START)
    if at < 0 or any(data[:at]):
        raise BitstreamInvalid("it does not begin with a start code (00 00 01): Annex B is expected, not AVCC")
    while at >= 0:
        if len(starts) == MAX_UNITS:
            raise BitstreamInvalid(f"it has more than {MAX_UNITS} NAL units")
        starts.append(at + len(_START))
        at = data.find(_START, at + len(_START))
    return starts


def _size(unit: bytes, is_h264: bool) -> PictureSize:
    bits = _Bits(unit[1 if is_h264 else 2 :].replace(b"\x00\x00\x03", b"\x00\x00"))  # emulation prevention, 7.4.1
    try:
        size = _h264_size(bits) if is_h264 else _h265_size(bits)
    except IndexError:
        raise BitstreamInvalid("its sequence parameter set is cut off") from None
    if size.width < 1 or size.height < 1:
        raise BitstreamInvalid("its sequence parameter set crops everything away")
    return size


def _h264_size(bits: _Bits) -> PictureSize:
    profile = bits.read(8)
    bits.read(16)  # constraints, level
    bits.unsigned()
    chroma_format = 1
    if profile in _H264_WITH_CHROMA_FORMAT:
        chroma_format = bits.unsigned()
        if chroma_format == 3 and bits.read(1):
            chroma_format = 0
        bits.unsigned()
        bits.unsigned()
        bits.read(1)
        if bits.read(1):
            for number in range(12 if chroma_format == 3 else 8):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if number < 6 else 64)
    bits.unsigned()
    order_type = bits.unsigned()
    if order_type == 0:
        bits.unsigned()
    elif order_type == 1:
        bits.read(1)
        bits.unsigned()
        bits.unsigned()
        for _ in range(min(bits.unsigned(), 256)):
            bits.unsigned()
    bits.unsigned()
    bits.read(1)
    columns = (bits.unsigned() + 1) * 16
    rows = (bits.unsigned() + 1) * 16
    frames_only = bits.read(1)
    if not frames_only:
        rows *= 2
        bits.read(1)
    bits.read(1)
    across, down = _CHROMA_STEPS.get(chroma_format, (1, 1))
    return _cropped(bits, columns, rows, across, down if frames_only else 2 * down)


def _skip_scaling_list(bits: _Bits, length: int) -> None:
    last = following = 8
    for _ in range(length):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _h265_size(bits: _Bits) -> PictureSize:
    bits.read(4)
    sub_layers = bits.read(3)
    bits.read(1)
    bits.read(96)  # the general profile, tier and level
    present = [(bits.read(1), bits.read(1)) for _ in range(sub_layers)]
    if sub_layers:
        bits.read(2 * (8 - sub_layers))
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)
    bits.unsigned()
    chroma_format = bits.unsigned()
    if chroma_format == 3 and bits.read(1):
        chroma_format = 0
    columns, rows = bits.unsigned(), bits.unsigned()
    return _cropped(bits, columns, rows, *_CHROMA_STEPS.get(chroma_format, (1, 1)))


def _cropped(bits: _Bits, columns: int, rows: int, across: int, down: int) -> PictureSize:
    left = right = top = bottom = 0
    if bits.read(1):
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
    return PictureSize(columns - across * (left + right), rows - down * (top + bottom), columns, rows)


class _Bits:
    """Reads bits from the first to the last; raises IndexError behind that."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = 8 * len(data)

    def read(self, count: int) -> int:
        """The next bits as a number, the first one highest."""
        if count > self._left:
            raise IndexError
        self._left -= count
        return self._value >> self._left & ((1 << count) - 1)

    def unsigned(self) -> int:
        """An Exp-Golomb code, ue(v)."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.read(zeros)

    def signed(self) -> int:
        """A signed Exp-Golomb code, se(v)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)
