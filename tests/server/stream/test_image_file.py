from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.monocoque.v1 import camera_pb2 as pb
from server.stream.image_file import MAX_SEGMENTS, file_size

JPEG, PNG = pb.ENCODING_JPEG, pb.ENCODING_PNG
NOISE = np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)


def encoded(extension: str, *parameters: int) -> bytes:
    return cv2.imencode(extension, NOISE, list(parameters))[1].tobytes()


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        pytest.param(encoded(".jpg"), JPEG, id="baseline"),
        pytest.param(encoded(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1), JPEG, id="progressive"),
        pytest.param(encoded(".jpg", cv2.IMWRITE_JPEG_RST_INTERVAL, 1), JPEG, id="restart markers"),
        pytest.param(encoded(".jpg") + bytes(100), JPEG, id="padded by the camera"),
        pytest.param(b"\xff\xd8\xff\xff" + encoded(".jpg")[3:], JPEG, id="fill bytes"),
        pytest.param(b"\xff\xd8\xff\xe1\x00\x06ABCD" + encoded(".jpg")[2:], JPEG, id="an EXIF segment"),
        pytest.param(encoded(".png"), PNG, id="PNG"),
    ],
)
def test_the_size_is_read_from_the_header(data: bytes, encoding: int) -> None:
    assert file_size(memoryview(data), encoding) == (30, 20)


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (b"", JPEG, "start with FF D8"),
        (b"\xff\xd8\xff", JPEG, "start with FF D8"),
        (b"\xff\xd8\xff\xe0\x00", JPEG, "cut off in its headers, at byte 5"),
        (b"\xff\xd8\x00\x00\x00\x00", JPEG, "byte 2 should begin a segment"),
        (b"\xff\xd8\xff\xda\x00\x08", JPEG, "no frame header before its first scan"),
        (b"\xff\xd8\xff\xc0\x00\x11\x08", JPEG, "cut off in its frame header"),
        (b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x10\x00\x10", JPEG, "FF C1, 12 bits"),
        (b"\xff\xd8\xff\xc3\x00\x0b\x08\x00\x10\x00\x10", JPEG, "lossless"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x02" * MAX_SEGMENTS, JPEG, f"first {MAX_SEGMENTS} segments"),
        (encoded(".jpg")[:-2], JPEG, "no end of image"),
        (encoded(".png")[:-1], PNG, None),
        (encoded(".png")[:-12], PNG, "IEND"),
        (encoded(".jpg"), PNG, "PNG signature"),
        (encoded(".png"), JPEG, "start with FF D8"),
    ],
)
def test_what_is_no_whole_file_is_told_apart(data: bytes, encoding: int, reason: str | None) -> None:
    found = file_size(memoryview(data), encoding)
    if reason is not None:
        assert isinstance(found, str)
        assert reason in found


def test_a_decompression_bomb_shows_its_size_before_it_is_decoded() -> None:
    bomb = encoded(".png")
    bomb = bomb[:16] + struct.pack(">II", 100_000, 100_000) + bomb[24:]
    assert file_size(memoryview(bomb), PNG) == (100_000, 100_000)


@given(noise=st.binary(max_size=200), encoding=st.sampled_from([JPEG, PNG]))
def test_arbitrary_bytes_give_a_size_or_a_reason(noise: bytes, encoding: int) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"):
        found = file_size(memoryview(start + noise), encoding)
        assert isinstance(found, (str, tuple))


@given(cut=st.integers(0, len(encoded(".jpg")) - 1))
def test_a_file_cut_off_anywhere_is_noticed(cut: int) -> None:
    data = encoded(".jpg")[:cut]
    assert isinstance(file_size(memoryview(data), JPEG), str)
