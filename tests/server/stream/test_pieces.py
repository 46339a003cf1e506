"""Frames that come in pieces, over a real socket."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server.frames import Frame
from server.stream.pieces import PIECE_BYTES
from tests.server.conftest import Engine, Running
from tests.server.raw_client import camera, pixels
from tests.server.test_bad_clients import no_frames_alive

SIZE_BYTES = 64 * 32 * 3


def pieces(sequence: int, data: bytes, piece_bytes: int, camera_id: str = "front") -> Iterator[bytes]:
    header = camera_pb2.FrameHeader(
        camera_id=camera_id, sequence=sequence, encoding=camera_pb2.ENCODING_RGB8, width=64, height=32
    )
    return wire.pieces(stream_pb2.StreamFramesRequest(frame=header), memoryview(data), piece_bytes)


def more(data: bytes) -> bytes:
    return stream_pb2.StreamFramesRequest(pixels=data).SerializeToString()


async def test_a_frame_in_pieces_is_the_frame(running: Running, engine: Engine) -> None:
    stream = running.stream()
    opened = await stream.open([camera()])
    assert opened.piece_bytes == PIECE_BYTES
    for sequence, (value, piece_bytes) in enumerate([(10, 1), (20, 4096), (30, SIZE_BYTES - 1), (40, SIZE_BYTES)]):
        for message in pieces(sequence, pixels(value), piece_bytes):
            await stream.send(message)
        (result,) = await stream.results(1)
        assert (result.status, result.reason) == (pb.STATUS_OK, "")
        assert result.memory.frame_bytes == SIZE_BYTES
    assert engine.batches == [[10], [20], [30], [40]]
    assert running.frames("ok") == 4


async def test_a_frame_that_waits_is_not_overwritten_by_the_next(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera(name) for name in ("a", "b", "c")])
    for name, value in (("a", 10), ("b", 20), ("c", 30)):
        for message in pieces(1, pixels(value), 1000, name):
            await stream.send(message)
    await engine.entered()
    engine.free()
    await stream.results(3)
    assert sorted(mean for batch in engine.batches for mean in batch) == [10, 20, 30]


async def test_the_clock_may_be_asked_between_two_pieces(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera()])
    first, second = pieces(1, pixels(), SIZE_BYTES // 2)
    await stream.send(first)
    await stream.send(
        stream_pb2.StreamFramesRequest(clock_probe=stream_pb2.ClockProbe(client_time_ns=5)).SerializeToString()
    )
    await stream.send(second)
    (result,) = await stream.results(1)
    assert result.status == pb.STATUS_OK
    assert [reply.client_time_ns for reply in stream.clock_replies] == [5]


@pytest.mark.parametrize(
    ("messages", "code", "reason"),
    [
        ([*list(pieces(1, pixels(), 4000))[:1], *pieces(2, pixels(), 0)], "INVALID_ARGUMENT", "4000 of 6144 bytes"),
        ([next(pieces(1, pixels(), 6000)), more(bytes(145))], "INVALID_ARGUMENT", "145 more bytes"),
        ([more(b"12")], "INVALID_ARGUMENT", "2 bytes of pixels belong to no frame"),
        ([next(pieces(1, pixels(), 4000)), b""], "INVALID_ARGUMENT", "empty"),
        ([next(pieces(1, bytes(10**6), 4000))], "RESOURCE_EXHAUSTED", "--max-frame"),
    ],
    ids=["another frame between", "too many bytes", "no frame", "an empty message", "too large"],
)
async def test_pieces_that_do_not_fit_together_end_their_stream_alone(
    running: Running, messages: list[bytes], code: str, reason: str
) -> None:
    bystander = await running.open_one("calm")
    stream = running.stream()
    await stream.open([camera()])
    for message in messages:
        await stream.send(message)
    assert await stream.result() is None
    found, details = await stream.status()
    assert found is grpc.StatusCode[code]
    assert reason in details
    for message in pieces(1, pixels(), 1000, "calm"):
        await bystander.send(message)
    assert (await bystander.results(1))[0].status == pb.STATUS_OK


async def test_a_size_that_disagrees_with_the_bytes_is_refused(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera()])
    header = camera_pb2.FrameHeader(
        camera_id="front", sequence=1, encoding=camera_pb2.ENCODING_RGB8, width=64, height=32, size_bytes=10
    )
    await stream.send(wire.join(stream_pb2.StreamFramesRequest(frame=header), pixels()))
    (result,) = await stream.results(1)
    assert result.status == pb.STATUS_REFUSED
    assert result.reason == f"size_bytes is 10, {SIZE_BYTES} bytes of pixels came"


async def test_a_client_that_leaves_in_the_middle_of_a_frame_leaves_nothing_behind(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(next(pieces(1, pixels(), 4000)))
    stream.call.cancel()
    await running.until(lambda: not running.server.core.sessions)
    del stream
    await running.until(no_frames_alive)
    await running.still_serves()


def test_memory_is_given_back_once(running_frame: Frame) -> None:
    given: list[int] = []
    running_frame.give_back = lambda: given.append(1)
    running_frame.release()
    running_frame.release()
    assert given == [1]
    assert not running_frame.pixels


@pytest.fixture
def running_frame() -> Frame:
    return Frame(None, camera_pb2.FrameHeader(), np.zeros(4, np.uint8).data, None)  # type: ignore[arg-type]
