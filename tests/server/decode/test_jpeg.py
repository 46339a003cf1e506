from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from engine.preprocess import place
from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import DecodeFailed, decode
from server.decode.jpeg import MAX_SCANS, PADDING_BYTES, reduction
from tests.server.decode.pictures import header, jpeg, network_input, picture, spec

WIDTH, HEIGHT = 320, 200
SAID = header(pb.ENCODING_JPEG, WIDTH, HEIGHT)
IMAGE = picture(WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("size", "resize", "kernel", "divisor"),
    [
        ((320, 200), "stretch", "area", 1),
        ((161, 100), "stretch", "area", 1),
        ((160, 100), "stretch", "area", 2),
        ((80, 50), "stretch", "area", 4),
        ((40, 25), "stretch", "area", 8),
        ((4, 4), "stretch", "area", 8),
        ((160, 160), "letterbox", "area", 2),
        ((100, 100), "crop", "area", 2),
        ((101, 101), "crop", "area", 1),
        ((40, 25), "stretch", "bilinear", 1),
        ((40, 25), "stretch", "nearest", 1),
    ],
)
def test_no_more_is_decoded_than_the_network_needs(
    size: tuple[int, int], resize: str, kernel: str, divisor: int
) -> None:
    wanted = spec(*size, resize=resize, kernel=kernel)
    assert reduction(SAID, place(WIDTH, HEIGHT, wanted), wanted) == divisor
    decoded = decode(SAID, memoryview(jpeg(IMAGE)), wanted)
    assert decoded.nbytes == -(-WIDTH // divisor) * -(-HEIGHT // divisor) * 3


@pytest.mark.parametrize("size", [(160, 100), (107, 67), (80, 50), (45, 30), (40, 25)])
@pytest.mark.parametrize("quality", [50, 95])
def test_a_reduced_picture_is_the_averaged_one(size: tuple[int, int], quality: int) -> None:
    data = jpeg(IMAGE, cv2.IMWRITE_JPEG_QUALITY, quality)
    whole = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    averaged = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(int)
    difference = np.abs(network_input(SAID, data, spec(*size, resize="stretch")) - averaged)
    assert difference.mean() < 2.0
    assert np.percentile(difference, 99) <= 8


@pytest.mark.parametrize(("width", "height"), [(1, 1), (7, 3), (17, 9), (321, 201), (33, 250)])
@pytest.mark.parametrize("resize", ["stretch", "crop", "letterbox"])
def test_odd_sizes_are_decoded(width: int, height: int, resize: str) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    seen = network_input(header(pb.ENCODING_JPEG, width, height), jpeg(image), spec(8, 6, resize=resize, pad_value=90))
    assert np.abs(seen.astype(int) - 90).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_grey_colour_and_cmyk_baseline_and_progressive(mode: str, progressive: bool) -> None:
    file = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(file, "JPEG", quality=95, progressive=progressive)
    shown = np.asarray(Image.fromarray(IMAGE).convert(mode).convert("RGB"))
    seen = network_input(SAID, file.getvalue(), spec(WIDTH, HEIGHT))
    assert np.abs(seen.astype(int) - shown).mean() < 4


def test_the_memory_it_was_decoded_into_is_used_again() -> None:
    wanted = spec(WIDTH, HEIGHT)
    data = memoryview(jpeg(IMAGE))
    out = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    addresses = set()
    for _ in range(5):
        decoded = decode(SAID, data, wanted)
        addresses.add(decoded.samples.image.ctypes.data)  # type: ignore[attr-defined]
        decoded.write_into(out)
    assert len(addresses) == 1
    first, second = decode(SAID, data, wanted), decode(SAID, data, wanted)
    assert first.samples.image.ctypes.data != second.samples.image.ctypes.data  # type: ignore[attr-defined]


def test_damage_in_a_scan_is_said_and_there_is_still_a_picture() -> None:
    data = bytearray(jpeg(IMAGE))
    scan = data.index(b"\xff\xda")
    del data[scan + 800 : scan + 1100]
    decoded = decode(SAID, memoryview(data), spec(WIDTH, HEIGHT))
    assert "the JPEG file is damaged" in decoded.damage
    out = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    decoded.write_into(out)
    assert out.any()


def test_a_scan_that_was_cut_off_and_ended_is_damaged() -> None:
    data = jpeg(IMAGE)
    cut = data[: len(data) * 2 // 3] + b"\xff\xd9"
    assert "premature end" in decode(SAID, memoryview(cut), spec(WIDTH, HEIGHT)).damage


@pytest.mark.parametrize(("padding", "damaged"), [(0, False), (2, False), (PADDING_BYTES, False), (500, True)])
def test_a_few_bytes_of_padding_are_no_damage(padding: int, damaged: bool) -> None:
    data = jpeg(IMAGE)[:-2] + bytes(padding) + b"\xff\xd9"
    assert bool(decode(SAID, memoryview(data), spec(WIDTH, HEIGHT)).damage) == damaged


def test_a_file_of_too_many_scans_is_not_decoded() -> None:
    data = jpeg(IMAGE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    last = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + last * MAX_SCANS + b"\xff\xd9"
    with pytest.raises(DecodeFailed, match=f"at most {MAX_SCANS} are decoded"):
        decode(SAID, memoryview(bomb), spec(WIDTH, HEIGHT))


def test_a_file_of_another_size_than_declared_is_not_decoded() -> None:
    with pytest.raises(DecodeFailed, match="JPEG file"):
        decode(header(pb.ENCODING_JPEG, 100, 100), memoryview(jpeg(IMAGE)), spec(100, 100))
    with pytest.raises(DecodeFailed, match="decodes to 320x200, expected were 400x400"):
        decode(header(pb.ENCODING_JPEG, 400, 400), memoryview(jpeg(IMAGE)), spec(400, 400))
