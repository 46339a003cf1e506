"""Constant stream: frames are offered when they are due, whether or not the server keeps up.

Latency counts from the moment a frame was *due*, not from the moment it was sent. A generator that waits for answers
before it sends again would leave out exactly the frames that a slow server made late (coordinated omission).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable

from client.bench.frames import Ammunition
from client.bench.pacer import Pacer
from client.bench.record import Record
from client.bench.schedule import Shot, constant_stream
from client.connection import Connection
from client.errors import StreamClosed
from client.frames import Frame
from client.stream import Policy, Stream

DRAIN_SECONDS = 5.0
"""After the last frame was due; whatever has no answer by then counts as unanswered."""
START_DELAY_NS = 20_000_000
"""For the metronome to be ready before the first frame is due."""


async def run_open_loop(
    connection: Connection,
    ammunition: Ammunition,
    rate: float,
    seconds: float,
    *,
    stop: asyncio.Event,
    together: bool = False,
    policy: Policy = "live",
    max_age_ns: int = 0,
    shared_memory: bool = False,
    scenario: str = "constant-stream",
    on_offer: Callable[[], None] = lambda: None,
) -> Record:
    """Offer frames of every camera at a fixed rate.

    Args:
        connection: To whom.
        ammunition: What.
        rate: Frames per second of each camera.
        seconds: For how long.
        stop: Set it to end the run early; the record is of what was offered by then.
        together: Whether all shutters open at once.
        policy: `live`: the freshest frame of each camera. `replay`: every frame; what the server does not take waits
            here, and its latency grows.
        max_age_ns: Age at which an answer is of no use; 0: none.
        shared_memory: Whether frames go through memory that the server shares.
        scenario: Its name in the record.
        on_offer: Told of each frame.

    Raises:
        ClientError: The stream failed.
    """
    cameras = ammunition.cameras
    record = Record(
        name=f"{len(cameras)} x {rate:g}/s {ammunition.name}",
        scenario=scenario,
        cameras=len(cameras),
        offered_per_second=rate * len(cameras),
        frame_bytes=ammunition.mean_bytes,
    )
    taken = [0] * len(cameras)
    async with connection.stream(cameras, policy=policy, max_age_ns=max_age_ns, shared_memory=shared_memory) as stream:
        lanes = Lanes(stream) if policy == "replay" else None
        started_ns = time.monotonic_ns() + START_DELAY_NS
        ended = asyncio.Event()

        def offer(shot: Shot) -> None:
            due_ns = started_ns + shot.due_ns
            index = record.offer(due_ns, shot.camera, time.monotonic_ns())
            frame = ammunition.frame(shot.camera, taken[shot.camera], due_ns, index)
            taken[shot.camera] += 1
            if lanes is not None:
                lanes.put(frame)
            else:
                with contextlib.suppress(StreamClosed):  # the reader says why the stream ended
                    stream.submit(frame)
            on_offer()

        pacer = Pacer(constant_stream(len(cameras), rate, seconds, together), started_ns, offer, ended.set)
        reading = asyncio.ensure_future(_read(stream, record))
        pacer.start()
        try:
            await _first(ended.wait(), stop.wait(), reading)
            pacer.stop()
            await ended.wait()
            record.interrupted = stop.is_set()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(_drain(stream, lanes, reading), 1.0 if stop.is_set() else DRAIN_SECONDS)
            if reading.done():
                reading.result()
        finally:
            pacer.stop()
            reading.cancel()
            if lanes is not None:
                lanes.close()
        record.seconds = (max((at for at in record.returned_ns if at), default=started_ns) - started_ns) / 1e9
        record.client_dropped = sum(counts.client_dropped for counts in stream.counts.values())
    return record


class Lanes:
    """Frames of a replay that wait for the server: one queue and one sender per camera, none of them bounded.

    Args:
        stream: Where they go.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._waiting: dict[str, deque[Frame]] = {camera_id: deque() for camera_id in stream.cameras}
        self._more = {camera_id: asyncio.Event() for camera_id in stream.cameras}
        self._idle = asyncio.Event()
        self._senders = [asyncio.ensure_future(self._send(camera_id)) for camera_id in stream.cameras]

    def put(self, frame: Frame) -> None:
        """Add a frame."""
        self._waiting[frame.camera_id].append(frame)
        self._idle.clear()
        self._more[frame.camera_id].set()

    async def empty(self) -> None:
        """Wait until every frame has left."""
        if any(self._waiting.values()):
            await self._idle.wait()

    def close(self) -> None:
        """Give up what waits."""
        for sender in self._senders:
            sender.cancel()

    async def _send(self, camera_id: str) -> None:
        waiting, more = self._waiting[camera_id], self._more[camera_id]
        while True:
            while waiting:
                with contextlib.suppress(StreamClosed):
                    await self._stream.send(waiting[0])
                waiting.popleft()
            more.clear()
            if not any(self._waiting.values()):
                self._idle.set()
            await more.wait()


async def _read(stream: Stream, record: Record) -> None:
    async for result in stream:
        assert result.frame is not None  # noqa: S101 - results of a stream have their frames
        record.answer(result.frame.context, result, stream.clock.now_ns())


async def _drain(stream: Stream, lanes: Lanes | None, reading: asyncio.Future[None]) -> None:
    if lanes is not None:
        await lanes.empty()
    await stream.finish()
    await asyncio.shield(reading)


async def _first(*waits: object) -> None:
    """Wait until one is done; the others are given up, but for a task of the caller's."""
    tasks = [wait if isinstance(wait, asyncio.Future) else asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task, wait in zip(tasks, waits, strict=True):
        if task is not wait:
            task.cancel()
