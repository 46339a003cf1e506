"""A well-behaved stream that runs beside a hostile one, and must not notice."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from protos.monocoque.v1 import stream_pb2
from protos.monocoque.v1.result_pb2 import STATUS_OK
from tests.server.conftest import Running
from tests.server.raw_client import camera, frame

FRAMES_AT_LEAST = 20


@contextlib.asynccontextmanager
async def undisturbed(running: Running, name: str = "calm") -> AsyncIterator[None]:
    """Send frame after frame while the block runs, and then check that each was answered OK, in order."""
    stream = running.stream()
    await stream.open([camera(name)], policy=stream_pb2.POLICY_REPLAY)
    stop = asyncio.Event()
    answered: list[int] = []
    sent = 0

    async def go() -> None:
        nonlocal sent
        while not stop.is_set() or sent < FRAMES_AT_LEAST:
            await stream.send(frame(sent, name))
            (result,) = await stream.results(1)
            assert (result.status, result.reason) == (STATUS_OK, "")
            answered.append(result.sequence)
            sent += 1
            await asyncio.sleep(0)

    going = asyncio.ensure_future(go())
    try:
        yield
    finally:
        stop.set()
        await going
    assert await stream.finish() == []
    assert answered == list(range(sent))
