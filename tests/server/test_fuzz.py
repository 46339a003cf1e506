"""Random clients: no message, order or ending may surprise the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import grpc
import grpc.aio
import pytest

from protos import wire
from protos.monocoque.v1 import camera_pb2, stream_pb2
from tests.server.conftest import Running, complaints
from tests.server.raw_client import PATIENCE_SECONDS, camera, pixels

EXTREME_TIMES_NS = (0, -1, 1, 2**62, -(2**63), 2**63 - 1)


def a_frame(chance: random.Random) -> bytes:
    """A frame that may be good, absurd, cut off or damaged."""
    times = {
        "capture_time_ns": chance.choice(EXTREME_TIMES_NS),
        "client_send_time_ns": chance.choice(EXTREME_TIMES_NS),
        "max_age_ns": chance.choice([0, 0, 1, 2**63, 2**64 - 1]),
    }
    if chance.random() < 0.5:
        header = camera_pb2.FrameHeader(
            camera_id="b", sequence=chance.getrandbits(8), encoding=3, width=64, height=32, **times
        )
        return wire.join(stream_pb2.StreamFramesRequest(frame=header), pixels())
    header = camera_pb2.FrameHeader(
        camera_id=chance.choice(["a", "b", "x" * chance.randint(0, 300)]),
        sequence=chance.getrandbits(chance.choice([3, 64])),
        encoding=chance.choice(range(16)),  # type: ignore[arg-type]
        width=chance.choice([0, 1, 64, 65, 2**31]),
        height=chance.choice([0, 32, 33, 2**31]),
        stride_bytes=chance.choice([0, 0, 1, 192, 2**31]),
        color_matrix=chance.choice([0, 1, 2, 7]),  # type: ignore[arg-type]
        client_dropped=chance.choice([0, 5]),
        **times,
    )
    message = bytearray(
        wire.join(stream_pb2.StreamFramesRequest(frame=header), chance.randbytes(chance.choice([0, 10, 4096, 6144])))
    )
    if chance.random() < 0.1:
        message[chance.randrange(min(40, len(message)))] ^= 1 << chance.randrange(8)
    return bytes(message[: chance.randint(0, len(message))] if chance.random() < 0.1 else message)


async def a_client(running: Running, chance: random.Random) -> None:
    """Opens, sends, perhaps reads, and leaves in one way or another."""
    stream = running.stream()
    cameras = [camera("a", encoding=chance.choice(range(1, 15))), camera("b")]
    clock = stream_pb2.Clock(kind=chance.choice([0, 1, 2, 3]), error_ns=chance.choice([0, 2**40]))  # type: ignore[arg-type]
    opening = stream_pb2.Open(
        cameras=cameras, clock=clock, policy=chance.choice([0, 1, 2]), max_age_ns=chance.choice([0, 1, 10**6])
    )
    reading = None
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError, asyncio.InvalidStateError):
        await stream.call.write(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
        if chance.random() < 0.9:
            reading = asyncio.ensure_future(stream.result_count())
        for _ in range(chance.randint(0, 20)):
            await stream.call.write(a_frame(chance))
        if chance.random() < 0.6:
            await stream.call.done_writing()
            if reading is not None:
                await asyncio.wait_for(reading, PATIENCE_SECONDS)  # each stream that is finished comes to its end
    stream.call.cancel()
    if reading is not None:
        await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize("seed", range(4))
async def test_random_clients_change_nothing_for_others(
    real: Running, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(seed)
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            await asyncio.gather(*(a_client(real, random.Random(chance.getrandbits(32))) for _ in range(4)))
        await real.until(lambda: not real.server.core.sessions)
    assert complaints(caplog) == []
    assert real.server.mailbox.depths() == {}
    await real.still_serves()
