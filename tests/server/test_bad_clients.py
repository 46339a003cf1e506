"""Clients that send nonsense, vanish or do not read: each is told why, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import grpc
import numpy as np
import pytest
from grpc.aio import insecure_channel

from engine.manifest import TensorPostprocessing
from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server import outbox
from server.frames import Frame
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import RawStream, camera, frame

JPEG, PNG, RGB8 = camera_pb2.ENCODING_JPEG, camera_pb2.ENCODING_PNG, camera_pb2.ENCODING_RGB8


def image_file(extension: str, width: int = 64, height: int = 32) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.imencode(extension, noise)[1].tobytes()


async def still_serves(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera("other")])
    await stream.send(frame(1, "other"))
    assert (await stream.results(1))[0].status == pb.STATUS_OK
    await stream.finish()


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
    await still_serves(real)


async def open_one(running: Running, name: str) -> Any:
    stream = running.stream()
    await stream.open([camera(name)])
    return stream


async def test_streams_beyond_the_limit_are_refused_until_one_ends(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, max_streams=1) as running:
        first = await open_one(running, "a")
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
        third = await open_one(running, "c")
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
    bystander = await open_one(running, "calm")
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
    await still_serves(real)


async def test_a_bundle_that_takes_tensors_refuses_camera_streams(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tensors", camera=False, postprocessing=TensorPostprocessing())
    async with serving(bundle) as running:
        stream = running.stream()
        await stream.send(stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera()])).SerializeToString())
        assert await stream.receive() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "takes tensors, not camera frames" in details


async def test_a_client_that_vanishes_leaves_nothing_behind(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(frame(1))
    await engine.entered()
    await stream.send(frame(2))
    await running.until(lambda: any(running.server.mailbox.depths().values()))
    stream.call.cancel()
    await running.until(lambda: not running.server.core.sessions)
    assert running.server.mailbox.depths() == {}
    assert running.frames("undelivered") == 1  # the one that waited
    engine.free()
    await running.until(lambda: running.frames("undelivered") == 2)  # the one in the engine
    await still_serves(running)
    del stream
    await running.until(no_frames_alive)


async def test_a_connection_that_breaks_in_the_middle_of_a_frame_leaves_nothing_behind(running: Running) -> None:
    bystander = await open_one(running, "calm")
    async with breaking_after(200_000, running.addresses.frames) as address, insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera(width=128, height=128)])
        cut = [frame(number, data=bytes(49_152), width=128, height=128) for number in range(5)]  # the fifth is cut
        await asyncio.gather(*(stream.call.write(message) for message in cut), return_exceptions=True)
        await running.until(lambda: len(running.server.core.sessions) == 1)
    await bystander.send(frame(1, "calm"))
    assert (await bystander.results(1))[0].status == pb.STATUS_OK


@contextlib.asynccontextmanager
async def breaking_after(count: int, address: str) -> AsyncIterator[str]:
    """A relay that breaks the connection once the client has sent so many bytes."""
    host, _, port = address.partition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))

        async def back() -> None:
            while data := await from_server.read(65_536):
                writer.write(data)

        returning = asyncio.ensure_future(back())
        left = count
        while left > 0 and (data := await reader.read(min(left, 65_536))):
            left -= len(data)
            to_server.write(data)
        returning.cancel()
        for end in (to_server, writer):
            end.transport.abort()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def no_frames_alive() -> bool:
    gc.collect()
    return not [found for found in gc.get_objects() if isinstance(found, Frame)]


async def test_streams_that_come_and_go_leave_no_task_thread_or_slot(running: Running) -> None:
    await still_serves(running)
    await running.until(lambda: not running.server.core.sessions)
    tasks, threads = len(asyncio.all_tasks()), threading.active_count()
    for round_number in range(10):
        stream = running.stream()
        await stream.open([camera(f"c{index}") for index in range(6)])
        for index in range(6):
            await stream.send(frame(1, f"c{index}"))
        if round_number % 2:
            await stream.finish()
        else:
            stream.call.cancel()
        del stream
        await running.until(lambda: not running.server.core.sessions)
    await running.until(lambda: len(asyncio.all_tasks()) <= tasks)
    assert threading.active_count() == threads
    assert running.server.mailbox.depths() == {}
    await running.until(no_frames_alive)


async def test_a_client_that_never_reads_loses_its_stream_and_nobody_else_does(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 1 << 20)
    bystander = await open_one(running, "calm")
    stream = running.stream()
    await stream.open([camera()], tensors=["drivable"] * 20)  # results of 40 kB, far beyond what HTTP/2 buffers
    session = next(session for session in running.server.core.sessions if "front" in session.cameras)
    gone = weakref.ref(session)
    del session

    sequence = 0
    while len(running.server.core.sessions) == 2:
        await stream.send(frame(sequence))
        sequence += 1
    await bystander.send(frame(1, "calm"))
    assert (await bystander.results(1))[0].status == pb.STATUS_OK
    while await stream.receive() is not None:  # now it reads: what was under way, then the reason
        pass
    code, details = await stream.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "were not read" in details
    del stream
    await running.until(lambda: (gc.collect(), gone() is None)[1])
