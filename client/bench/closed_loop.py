"""Runs in which the server sets the pace: one frame at a time, and as many as it takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from client.bench.frames import Ammunition
from client.bench.record import Record
from client.connection import Connection


async def run_single_stream(
    connection: Connection,
    ammunition: Ammunition,
    seconds: float,
    *,
    stop: asyncio.Event,
    shared_memory: bool = False,
    on_offer: Callable[[], None] = lambda: None,
) -> Record:
    """MLPerf's single stream: the next frame goes when the answer to the last one is back.

    Args:
        connection: To whom.
        ammunition: What; the frames of its first camera.
        seconds: For how long.
        stop: Set it to end the run early.
        shared_memory: Whether frames go through memory that the server shares.
        on_offer: Told of each frame.

    Raises:
        ClientError: The stream failed.
    """
    record = Record(
        name=f"one at a time {ammunition.name}",
        scenario="single-stream",
        cameras=1,
        offered_per_second=0.0,
        frame_bytes=ammunition.mean_bytes,
    )
    async with connection.stream(ammunition.cameras[:1], shared_memory=shared_memory) as stream:
        started_ns = time.monotonic_ns()
        while (now_ns := time.monotonic_ns()) - started_ns < seconds * 1e9 and not stop.is_set():
            index = record.offer(now_ns, 0, now_ns)
            stream.submit(ammunition.frame(0, index, now_ns, index))
            record.answer(index, await anext(stream), time.monotonic_ns())
            on_offer()
        record.seconds = (time.monotonic_ns() - started_ns) / 1e9
    record.interrupted = stop.is_set()
    return record


async def measure_capacity(
    connection: Connection,
    ammunition: Ammunition,
    seconds: float,
    *,
    stop: asyncio.Event,
    shared_memory: bool = False,
) -> float:
    """Frames per second that the server computes when it always has the next one: every camera replays.

    Args:
        connection: To whom.
        ammunition: What.
        seconds: For how long; the first fifth is not counted.
        stop: Set it to end early.
        shared_memory: Whether frames go through memory that the server shares.

    Raises:
        ClientError: The stream failed.
    """
    computed = 0
    counted_from_ns = time.monotonic_ns() + round(seconds * 0.2e9)
    until_ns = time.monotonic_ns() + round(seconds * 1e9)
    async with connection.stream(ammunition.cameras, policy="replay", shared_memory=shared_memory) as stream:

        async def send(camera: int) -> None:
            number = 0
            while time.monotonic_ns() < until_ns and not stop.is_set():
                await stream.send(ammunition.frame(camera, number, None, number))
                number += 1

        async def read() -> None:
            nonlocal computed
            async for result in stream:
                computed += result.ok and counted_from_ns <= time.monotonic_ns() < until_ns

        reading = asyncio.ensure_future(read())
        await asyncio.gather(*(send(camera) for camera in range(len(ammunition.cameras))))
        await stream.finish()
        await reading
    return computed / (seconds * 0.8)
