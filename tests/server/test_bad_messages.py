"""Messages that make no sense: each is answered with what was wrong, and nobody else notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest

from engine.manifest import TensorPostprocessing
from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import camera, frame

JPEG, PNG, RGB8 = camera_pb2.ENCODING_JPEG, camera_pb2.ENCODING_PNG, camera_pb2.ENCODING_RGB8


def image_file(extension: str, width: int = 64, height: int = 32) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(extension, noise)[1].tobytes()


@pytest.mark.parametrize(
    ("opened_as", "sent", "reason"),
    [
        pytest.param({}, frame(1, "nobody"), "'nobody' is not one that this stream opened: front", id="unknown camera"),
        pytest.param({}, frame(1, data=b"x" * 100), "takes 6144 bytes, 100 came", id="too short"),
        pytest.param({}, frame(1, data=b"x" * 6145), "takes 6144 bytes, 6145 came", id="too long"),
        pytest.param({}, frame(1, data=b""), "takes 6144 bytes, 0 came", id="no pixels"),
        pytest.param({}, frame(1, width=32), "opened with 64x32, this frame is 32x32", id="another size"),
        pytest.param({}, frame(1, encoding=JPEG), "opened with RGB8, this frame is JPEG", id="another encoding"),
        pytest.param({}, frame(1, encoding=77), "this frame is 77", id="unknown encoding"),
        pytest.param({}, frame(1, color_matrix=9), "color_matrix 9", id="unknown matrix"),
        pytest.param({}, frame(1, color_range=9), "color_range 9 is not known", id="unknown range"),
        pytest.param(
            {}, frame(1, stride_bytes=100), "stride_bytes is 100, a row of 64 RGB8 pixels takes 192", id="stride"
        ),
        pytest.param({"encoding": JPEG}, frame(1, encoding=JPEG, data=b"GIF89a"), "start with FF D8", id="no JPEG"),
        pytest.param(
            {"encoding": JPEG},
            frame(1, encoding=JPEG, data=image_file(".jpg")[:-300]),
            "cut off: no end of image",
            id="truncated JPEG",
        ),
        pytest.param(
            {"encoding": JPEG},
            frame(1, encoding=JPEG, data=image_file(".jpg", 128, 96)),
            "the JPEG file is 128x96, its frame says 64x32",
            id="JPEG of another size",
        ),
        pytest.param(
            {"encoding": PNG}, frame(1, encoding=PNG, data=image_file(".png")[:-20]), "IEND", id="truncated PNG"
        ),
    ],
)
async def test_a_bad_frame_is_refused_with_both_values_and_the_stream_goes_on(
    real: Running, opened_as: dict[str, Any], sent: bytes, reason: str
) -> None:
    stream = real.stream()
    await stream.open([camera(**opened_as)])
    await stream.send(sent)
    result = (await stream.results(1))[0]
    assert result.status == pb.STATUS_REFUSED
    assert reason in result.reason
    assert not result.valid
    encoding = opened_as.get("encoding", RGB8)
    good = {RGB8: None, JPEG: image_file(".jpg"), PNG: image_file(".png")}[encoding]
    await stream.send(frame(2, data=good, encoding=encoding))
    assert (await stream.results(1))[0].status == pb.STATUS_OK


async def test_a_damaged_image_file_fails_alone(real: Running) -> None:
    damaged = bytearray(image_file(".png"))
    damaged[60:80] = bytes(20)
    stream = real.stream()
    await stream.open([camera(encoding=PNG)])
    await stream.send(frame(1, encoding=PNG, data=bytes(damaged)))
    result = (await stream.results(1))[0]
    assert result.status == pb.STATUS_FAILED
    assert "cannot be decoded" in result.reason
    await stream.send(frame(2, encoding=PNG, data=image_file(".png")))
    assert (await stream.results(1))[0].status == pb.STATUS_OK


async def test_a_damaged_scan_is_computed_and_its_result_is_not_valid(real: Running) -> None:
    whole = image_file(".jpg")
    scan = whole.index(b"\xff\xda")
    stream = real.stream()
    await stream.open([camera(encoding=JPEG)])
    await stream.send(frame(1, encoding=JPEG, data=whole[: scan + 100] + whole[scan + 160 :]))
    (damaged,) = await stream.results(1)
    assert damaged.status == pb.STATUS_OK
    assert not damaged.valid
    assert "the JPEG file is damaged" in damaged.reason
    await stream.send(frame(2, encoding=JPEG, data=whole))
    (good,) = await stream.results(1)
    assert (good.status, good.valid, good.reason) == (pb.STATUS_OK, True, "")


async def test_a_sequence_that_does_not_count_up_is_refused(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
    for sequence in (5, 5, 4, 6):
        await stream.send(frame(sequence))
    results = await stream.finish()
    assert sorted(result.status for result in results) == [1, 1, pb.STATUS_REFUSED, pb.STATUS_REFUSED]
    assert {result.reason for result in results if result.reason} == {
        "sequence 5 does not follow 5; it must count up",
        "sequence 4 does not follow 5; it must count up",
    }


@pytest.mark.parametrize(
    ("cameras", "fields", "code", "details"),
    [
        ([], {}, "INVALID_ARGUMENT", "open.cameras is empty"),
        ([camera("a b")], {}, "INVALID_ARGUMENT", "open.cameras[0].id is 'a b'"),
        ([camera("x" * 65)], {}, "INVALID_ARGUMENT", "1 to 64 letters"),
        ([camera(), camera()], {}, "INVALID_ARGUMENT", "open.cameras[1].id 'front' is there twice"),
        ([camera(width=0)], {}, "INVALID_ARGUMENT", "0x32 has no pixels"),
        ([camera(width=129)], {}, "INVALID_ARGUMENT", "--max-frame 129x32"),
        ([camera(encoding=0)], {}, "INVALID_ARGUMENT", "encoding UNSPECIFIED is not known"),
        ([camera(encoding=77)], {}, "INVALID_ARGUMENT", "encoding 77 is not known; known are JPEG, PNG"),
        ([camera(width=63, encoding=camera_pb2.ENCODING_YUYV)], {}, "INVALID_ARGUMENT", "a width of 63 must be even"),
        ([camera(height=31, encoding=camera_pb2.ENCODING_NV12)], {}, "INVALID_ARGUMENT", "a height of 31 must be even"),
        ([camera()], {"tensors": ["depth"]}, "INVALID_ARGUMENT", "open.tensors[0] is 'depth', outputs are scores"),
        ([camera()], {"policy": 9}, "INVALID_ARGUMENT", "open.policy is 9"),
        ([camera()], {"clock": {"kind": 2, "error_ns": 2**63}}, "INVALID_ARGUMENT", "open.clock.error_ns is 9223372"),
        ([camera(f"c{i}") for i in range(33)], {}, "RESOURCE_EXHAUSTED", "32 are allowed"),
    ],
)
async def test_an_open_that_makes_no_sense_names_the_field_and_its_value(
    real: Running, cameras: list[camera_pb2.Camera], fields: dict[str, Any], code: str, details: str
) -> None:
    stream = real.stream()
    await stream.send(
        stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=cameras, **fields)).SerializeToString()
    )
    assert await stream.receive() is None
    status, said = await stream.status()
    assert (status.name, details in said, "→" in said) == (code, True, True), said
    assert real.server.core.sessions == {}
    await real.still_serves()


async def test_streams_beyond_the_limit_are_refused_until_one_ends(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, max_streams=1) as running:
        first = await running.open_one("a")
        second = running.stream()
        await second.send(
            stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera("b")])).SerializeToString()
        )
        assert await second.receive() is None
        code, details = await second.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1 streams are open, 1 are allowed" in details
        assert "--max-streams" in details
        await first.finish()
        third = await running.open_one("c")
        await third.finish()


async def test_the_memory_budget_bounds_what_may_wait(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, memory_budget="64K") as running:
        stream = running.stream()
        await stream.send(
            stream_pb2.StreamFramesRequest(
                open=stream_pb2.Open(cameras=[camera(width=128, height=128)])
            ).SerializeToString()
        )
        assert await stream.receive() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "196608 bytes, 65536 of 65536 are left" in details


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (frame(1), "FAILED_PRECONDITION", "the first message is not `open`"),
        (b"", "FAILED_PRECONDITION", "the first message is not `open`"),
        (b"\xff\xff\xff", "INVALID_ARGUMENT", "malformed message"),
        (b"\x7a\x64", "INVALID_ARGUMENT", "malformed message"),
    ],
)
async def test_a_stream_must_begin_with_open(real: Running, message: bytes, code: str, details: str) -> None:
    stream = real.stream()
    await stream.send(message)
    assert await stream.receive() is None
    status, said = await stream.status()
    assert (status.name, details in said) == (code, True), said


async def test_a_stream_that_ends_before_open_is_told_so(real: Running) -> None:
    stream = real.stream()
    assert await stream.finish() == []
    assert (await stream.status())[0] is grpc.StatusCode.FAILED_PRECONDITION


async def test_malformed_bytes_end_their_stream_only(running: Running) -> None:
    bystander = await running.open_one("calm")
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(b"\x12\xff\xff\xff\xff\xff")
    while await stream.receive() is not None:
        pass
    assert (await stream.status())[0] is grpc.StatusCode.INVALID_ARGUMENT
    await bystander.send(frame(1, "calm"))
    assert (await bystander.results(1))[0].status == pb.STATUS_OK


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (stream_pb2.StreamFramesRequest(open=stream_pb2.Open()).SerializeToString(), "FAILED_PRECONDITION"),
        (b"", "INVALID_ARGUMENT"),
    ],
)
async def test_a_message_that_is_no_frame_ends_its_stream(real: Running, message: bytes, code: str) -> None:
    stream = real.stream()
    await stream.open([camera()])
    await stream.send(message)
    assert await stream.receive() is None
    assert (await stream.status())[0].name == code


async def test_a_frame_beyond_the_message_limit_ends_its_stream_only(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera()])
    await stream.send(frame(1, data=bytes(1 << 20)))
    assert await stream.receive() is None
    assert (await stream.status())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    await real.still_serves()


async def test_a_bundle_that_takes_tensors_refuses_camera_streams(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tensors", camera=False, postprocessing=TensorPostprocessing())
    async with serving(bundle) as running:
        stream = running.stream()
        await stream.send(stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera()])).SerializeToString())
        assert await stream.receive() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "takes tensors, not camera frames" in details
