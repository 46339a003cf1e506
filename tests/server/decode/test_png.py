from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import DecodeFailed, decode
from tests.server.decode.pictures import header, network_input, picture, png, spec

SAID = header(pb.ENCODING_PNG, 64, 48)
IMAGE = picture(64, 48)
FILE = png(IMAGE)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)  # type: ignore[arg-type]
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "LA", "RGBA", "I;16"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_every_kind_of_png_becomes_what_the_network_wants(mode: str, color: str) -> None:
    plain = Image.fromarray(IMAGE)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(plain.convert("L")).astype(np.uint16) * 257)
        shown = np.asarray(plain.convert("L").convert("RGB"))
    else:
        image = plain.convert(mode)
        shown = np.asarray(image.convert("RGB"))
    seen = network_input(SAID, saved(image), spec(64, 48, color=color)).astype(int)
    wanted = {
        "rgb": shown,
        "bgr": shown[..., ::-1],
        "gray": cv2.cvtColor(np.ascontiguousarray(shown), cv2.COLOR_RGB2GRAY)[..., None],
    }[color]
    assert np.abs(seen - wanted).max() <= 1


def test_interlaced_and_sixteen_bits() -> None:
    sixteen = cv2.imencode(".png", IMAGE[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    np.testing.assert_array_equal(network_input(SAID, sixteen, spec(64, 48)), IMAGE)


def test_of_an_animation_the_first_picture_counts() -> None:
    animated = saved(Image.fromarray(IMAGE), save_all=True, append_images=[Image.fromarray(255 - IMAGE)] * 3)
    assert b"fdAT" in animated
    np.testing.assert_array_equal(network_input(SAID, animated, spec(64, 48)), IMAGE)


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP"])
def test_a_bomb_beside_the_picture_is_not_touched(kind: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    bomb = chunk(kind, b"name\0\0" + zlib.compress(bytes(10**7)))
    np.testing.assert_array_equal(network_input(SAID, FILE[:33] + bomb + FILE[33:], spec(64, 48)), IMAGE)
    assert capfd.readouterr() == ("", "")


def test_a_picture_that_inflates_beyond_its_size_is_stopped() -> None:
    bomb = FILE[:33] + chunk(b"IDAT", zlib.compress(bytes(10**8))) + FILE[-12:]
    with pytest.raises(DecodeFailed, match="inflates to more than"):
        decode(SAID, memoryview(bomb), spec(64, 48))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (FILE[:100] + bytes([FILE[100] ^ 1]) + FILE[101:], "checksum of its IDAT chunk"),
        (FILE[:-40] + FILE[-12:], "ends behind the file"),
        (FILE[:-12], "no IEND chunk"),
        (FILE[:33] + chunk(b"IDAT", zlib.compress(bytes(48 * 193))[:-30]) + FILE[-12:], "cut off"),
        (FILE[:33] + chunk(b"IDAT", b"nonsense") + FILE[-12:], "cannot be decoded"),
        (FILE[:33] + FILE[-12:], "cut off"),
        (FILE[:8] + FILE[33:], "does not begin with its header"),
    ],
)
def test_damage_is_said_in_our_words(data: bytes, reason: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DecodeFailed, match=reason):
        decode(SAID, memoryview(data), spec(64, 48))
    assert capfd.readouterr() == ("", "")
