from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from protos.monocoque.v1 import camera_pb2 as pb
from server.decode import decode
from server.decode.video import Outcome, VideoDecoder
from tests.server.decode.pictures import spec
from tests.server.decode.videos import HEIGHT, WIDTH, headers, shade, video

H264, H265 = pb.ENCODING_H264, pb.ENCODING_H265
BOTH = pytest.mark.parametrize("encoding", [H264, H265], ids=["h264", "h265"])


def decoder(encoding: int, width: int = WIDTH, height: int = HEIGHT) -> VideoDecoder:
    return VideoDecoder(pb.Camera(id="front", encoding=encoding, width=width, height=height))  # type: ignore[arg-type]


def run(encoding: int, units: list[tuple[int, bytes]], **fields: Any) -> list[Outcome]:
    """Outcomes of access units that are numbered as they come; a unit of no bytes was lost."""
    subject = decoder(encoding, fields.get("width", WIDTH), fields.get("height", HEIGHT))
    outcomes = []
    for header, (_, data) in zip(headers(encoding, range(len(units)), **fields), units, strict=True):
        if data:
            outcomes += subject.decode(header, memoryview(data))
    return outcomes + subject.flush()


def seen(outcome: Outcome, encoding: int, **fields: Any) -> float:
    """Mean grey level of an outcome's picture, as the engine gets it."""
    assert outcome.picture is not None, outcome.reason
    (header,) = headers(encoding, [outcome.sequence], **fields)
    out = np.zeros((8, 8, 3), np.uint8)
    decode(header, memoryview(b""), spec(8, 8, resize="stretch"), outcome.picture).write_into(out)
    return float(out.mean())


@BOTH
@pytest.mark.parametrize("bframes", [0, 2])
def test_each_access_unit_gets_its_own_picture_in_the_order_of_capture(encoding: int, bframes: int) -> None:
    units = video(encoding, 14, bframes=bframes)
    captured = [number for number, _ in units]
    if bframes:
        assert captured != sorted(captured), "this video does reorder"
    outcomes = run(encoding, units)
    assert sorted(outcome.sequence for outcome in outcomes) == list(range(14))
    assert [captured[outcome.sequence] for outcome in outcomes] == list(range(14))
    for outcome in outcomes:
        assert seen(outcome, encoding) == pytest.approx(shade(captured[outcome.sequence]), abs=3)


def test_without_reordering_a_picture_comes_at_once() -> None:
    subject = decoder(H264)
    import client

    encoder = client.VideoEncoder("h264", WIDTH, HEIGHT)
    for header in headers(H264, range(5)):
        image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        (outcome,) = subject.decode(header, memoryview(encoder.encode(image).tobytes()))
        assert (outcome.sequence, outcome.status) == (header.sequence, "")


@BOTH
@pytest.mark.parametrize("bframes", [0, 2])
def test_after_a_loss_it_waits_for_the_next_keyframe(encoding: int, bframes: int) -> None:
    units = video(encoding, 18, bframes=bframes)
    units[3] = (units[3][0], b"")
    outcomes = {outcome.sequence: outcome for outcome in run(encoding, units)}
    assert sorted(outcomes) == [number for number in range(18) if number != 3]
    for sequence, outcome in outcomes.items():
        waits = 3 < sequence < 6
        assert outcome.status == ("waiting_for_keyframe" if waits else "")
        assert ("between access units 2 and 4 was lost" in outcome.reason) == waits
        if not waits:
            assert seen(outcome, encoding) == pytest.approx(shade(units[sequence][0]), abs=3)


@BOTH
def test_it_begins_with_a_keyframe(encoding: int) -> None:
    units = video(encoding, 12)
    outcomes = run(encoding, units[2:])
    assert [outcome.status for outcome in outcomes] == ["waiting_for_keyframe"] * 4 + [""] * 6
    assert "begins with a keyframe" in outcomes[0].reason


@BOTH
def test_a_damaged_access_unit_fails_and_what_builds_on_it_waits(encoding: int) -> None:
    units = video(encoding, 12, noise=10)
    units[2] = (units[2][0], units[2][1][: len(units[2][1]) // 2])
    statuses = [outcome.status for outcome in run(encoding, units)]
    assert statuses[:2] == ["", ""]
    assert statuses[2] == "failed"
    assert statuses[3:6] == ["waiting_for_keyframe"] * 3
    assert statuses[6:] == [""] * 6


@pytest.mark.parametrize(("limited", "said"), [(True, 0), (True, pb.COLOR_RANGE_LIMITED), (False, 0), (False, 1)])
def test_the_range_is_the_headers_or_the_bitstreams(limited: bool, said: int) -> None:
    units = video(H264, 4, limited=limited)
    for outcome in run(H264, units, color_range=said):
        assert seen(outcome, H264, color_range=said) == pytest.approx(shade(outcome.sequence), abs=3)


@pytest.mark.parametrize(
    ("encoding", "pixel_format"),
    [(H264, "yuv422p"), (H264, "yuv444p"), (H265, "yuv420p10le"), (H265, "gbrp")],
)
def test_other_samplings_and_depths(encoding: int, pixel_format: str) -> None:
    for outcome in run(encoding, video(encoding, 3, pixel_format=pixel_format)):
        assert seen(outcome, encoding) == pytest.approx(shade(outcome.sequence), abs=4)


@BOTH
@pytest.mark.parametrize(("width", "height"), [(66, 50), (130, 34)])
def test_sizes_that_coding_pads_are_cut_to_their_own(encoding: int, width: int, height: int) -> None:
    outcomes = run(encoding, video(encoding, 2, width=width, height=height), width=width, height=height)
    for outcome in outcomes:
        assert seen(outcome, encoding, width=width, height=height) == pytest.approx(shade(outcome.sequence), abs=3)


@BOTH
def test_another_size_than_declared_is_found_before_anything_is_decoded(encoding: int) -> None:
    outcomes = run(encoding, video(encoding, 2, width=1920, height=1080))
    assert outcomes[0].status == "failed"
    assert "its pictures are 1920x1080, the camera was opened with 64x48" in outcomes[0].reason
    assert outcomes[1].status == "waiting_for_keyframe"


@pytest.mark.parametrize("data", [b"", b"\0\0\0\x05hello", b"\0\0\1" * 600, b"\0\0\1\x67\x64\0"], ids=repr)
def test_what_is_no_access_unit_fails(data: bytes) -> None:
    (header,) = headers(H264, [0])
    (outcome,) = decoder(H264).decode(header, memoryview(data))
    assert outcome.status == "failed"
    assert "the H264 access unit cannot be decoded: it" in outcome.reason


@BOTH
def test_parameter_sets_may_come_ahead_of_their_picture(encoding: int) -> None:
    units = video(encoding, 3)
    slice_start = {H264: b"\0\0\1\x65", H265: b"\0\0\1\x28"}[pb.Encoding.ValueType(encoding)]
    at = units[0][1].index(slice_start)
    outcomes = run(encoding, [(-1, units[0][1][:at]), (0, units[0][1][at:]), *units[1:]])
    assert [outcome.status for outcome in outcomes] == ["failed", "", "", ""]
    assert "no picture" in outcomes[0].reason


@BOTH
@pytest.mark.parametrize("seed", range(6))
def test_random_damage_and_loss_leave_one_outcome_each(encoding: int, seed: int) -> None:
    """And once two whole groups of pictures have come, everything decodes again."""
    chance = random.Random(seed)
    units = video(encoding, 36, bframes=2, noise=8)
    for number in range(24):
        data = bytearray(units[number][1])
        if chance.random() < 0.3:
            for _ in range(chance.randint(1, 20)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.1:
            del data[chance.randrange(len(data)) :]
        units[number] = (units[number][0], bytes(data) if chance.random() > 0.1 else b"")
    outcomes = run(encoding, units)
    given = [number for number, (_, data) in enumerate(units) if data]
    assert sorted(outcome.sequence for outcome in outcomes) == given
    assert all((outcome.picture is None) == bool(outcome.status) for outcome in outcomes)
    assert all(not outcome.status for outcome in outcomes if outcome.sequence >= 30)
