from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode.bitstream import BitstreamInvalid, PictureSize, inspect
from tests.server.decode.videos import video

H264, H265 = pb.ENCODING_H264, pb.ENCODING_H265


@pytest.mark.parametrize("encoding", [H264, H265])
@pytest.mark.parametrize(("width", "height"), [(64, 48), (66, 50), (1920, 1080), (130, 34)])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p"])
def test_the_size_is_read_from_the_parameter_sets(encoding: int, width: int, height: int, pixel_format: str) -> None:
    first, second = video(encoding, 2, width=width, height=height, pixel_format=pixel_format)
    unit = inspect(first[1], encoding)
    assert {(size.width, size.height) for size in unit.sizes} == {(width, height)}
    assert all(width <= size.coded_width <= width + 16 for size in unit.sizes)
    assert unit.is_keyframe
    assert unit.has_picture
    follows = inspect(second[1], encoding)
    assert not follows.is_keyframe
    assert follows.has_picture
    assert follows.sizes == ()


class Bits:
    def __init__(self) -> None:
        self.text = ""

    def put(self, value: int, count: int) -> Bits:
        self.text += f"{value:0{count}b}" if count else ""
        return self

    def golomb(self, *values: int) -> Bits:
        for value in values:
            self.text += "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"
        return self

    def unit(self, head: int) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        data = bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
        return b"\0\0\1" + bytes([head]) + data.replace(b"\0\0", b"\0\0\3")


@given(
    columns=st.integers(1, 1024),
    rows=st.integers(1, 1024),
    crop=st.tuples(*[st.integers(0, 7)] * 4),
    interlaced=st.booleans(),
    order=st.sampled_from([0, 1, 2]),
)
def test_a_baseline_parameter_set_by_the_standards_table(
    columns: int, rows: int, crop: tuple[int, int, int, int], interlaced: bool, order: int
) -> None:
    """ITU-T H.264, 7.3.2.1.1, written out."""
    bits = Bits().put(66, 8).put(0, 8).put(30, 8).golomb(0, 0, order)
    if order == 0:
        bits.golomb(4)
    if order == 1:
        bits.put(1, 1).golomb(3, 4, 2, 5, 6)
    bits.golomb(1).put(0, 1).golomb(columns - 1, rows - 1).put(not interlaced, 1)
    if interlaced:
        bits.put(0, 1)
    bits.put(1, 1).put(1, 1).golomb(*crop)
    data = bits.unit(0x67) + b"\0\0\1\x65\x88"
    coded = (columns * 16, rows * 16 * (1 + interlaced))
    width, height = coded[0] - 2 * (crop[0] + crop[1]), coded[1] - 2 * (1 + interlaced) * (crop[2] + crop[3])
    if width < 1 or height < 1:
        with pytest.raises(BitstreamInvalid, match="crops everything"):
            inspect(data, H264)
    else:
        assert inspect(data, H264).sizes == (PictureSize(width, height, *coded),)


@pytest.mark.parametrize("encoding", [H264, H265])
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_looked_over_or_refused(encoding: int, data: bytes) -> None:
    head = {H264: b"\0\0\1\x67", H265: b"\0\0\1\x42\x01"}[pb.Encoding.ValueType(encoding)]
    for whole in (data, head + data):
        try:
            unit = inspect(whole, encoding)
        except BitstreamInvalid:
            continue
        assert all(size.width > 0 and size.height > 0 for size in unit.sizes)


@pytest.mark.parametrize("encoding", [H264, H265])
def test_flipped_bits_are_looked_over_or_refused(encoding: int) -> None:
    chance = random.Random(1)
    whole = video(encoding, 1)[0][1]
    for _ in range(500):
        data = bytearray(whole[:200])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            inspect(bytes(data), encoding)
        except BitstreamInvalid as error:
            assert str(error)
