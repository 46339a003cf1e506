"""Damaged and invented frames: each gives a network input or a reason, and the process does not grow.

`python -m tests.server.decode.fuzz ENCODING` runs the same target under atheris, for as long as one likes.
"""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.monocoque.v1 import camera_pb2 as pb
from server.stream.layout import ENCODINGS, VIDEO_ENCODINGS
from tests.server.decode.fuzz import HEIGHT, WIDTH, Target
from tests.server.decode.pictures import in_encoding, jpeg, picture
from tests.server.decode.videos import video

NAMES = {encoding: pb.Encoding.Name(pb.Encoding.ValueType(encoding)).lower() for encoding in ENCODINGS}
IMAGE = picture(WIDTH, HEIGHT)
GROWTH_BYTES = 24 << 20
"""What the allocator may still spread out to after the warm-up; a leak of one frame in ten would be more."""


def seeds(encoding: int) -> list[bytes]:
    """Whole frames, one after the other."""
    if encoding in VIDEO_ENCODINGS:
        return [data for _, data in video(encoding, 8, bframes=2, width=WIDTH, height=HEIGHT, noise=4)]
    if encoding == pb.ENCODING_JPEG:
        return [jpeg(IMAGE), jpeg(IMAGE, 2, 1), jpeg(IMAGE, 4, 1), jpeg(IMAGE[..., :1].repeat(3, axis=2))]
    return [in_encoding(encoding, IMAGE)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes flipped, cut out, doubled, or cut off."""
    out = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(out))
        how = chance.randrange(5)
        if how == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif how == 1:
            out[at] = chance.choice([0, 0xFF, 0x7F, 0x80])
        elif how == 2:
            del out[at : at + chance.randint(1, 64)]
        elif how == 3:
            out[at:at] = out[at : at + chance.randint(1, 64)]
        elif chance.random() < 0.2:
            del out[at:]
        if not out:
            return b"\0"
    return bytes(out)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS), ids=NAMES.get)
def test_damaged_frames_give_a_picture_or_a_reason_and_no_growth(encoding: int) -> None:
    chance = random.Random(encoding)
    whole = seeds(encoding)
    rounds = 60 if encoding in VIDEO_ENCODINGS else 150
    target = Target(encoding)

    def run() -> None:
        for number in range(rounds):
            data = whole[number % len(whole)]
            target(damaged(data, chance) if chance.random() < 0.8 else data)
        target.rest()

    run()
    before = resident_bytes()
    for _ in range(2):
        run()
    assert resident_bytes() - before < GROWTH_BYTES


@settings(max_examples=150)
@given(encoding=st.sampled_from(sorted(ENCODINGS)), data=st.binary(max_size=2000))
def test_invented_frames_give_a_picture_or_a_reason(encoding: int, data: bytes) -> None:
    start = {
        pb.ENCODING_JPEG: b"\xff\xd8\xff",
        pb.ENCODING_PNG: b"\x89PNG\r\n\x1a\n",
        pb.ENCODING_H264: b"\0\0\1\x67",
        pb.ENCODING_H265: b"\0\0\1\x42\1",
    }.get(pb.Encoding.ValueType(encoding), b"")
    target = Target(encoding)
    target(data)
    target(start + data)
    target.rest()
