"""One run: a source's frames through a server, until the source ends, the time is up, or someone says stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from client.clock import StreamClock
from client.connection import connect
from client.encode_video import VIDEO_ENCODINGS
from client.engine import Engine
from client.errors import ClientError
from client.frames import Camera, Frame
from client.producer import Producer, Recipe
from client.results import Result
from client.rpc import DEFAULT_ADDRESS
from client.statistics import Statistics
from client.stream import Policy, Stream

DRAIN_SECONDS = 10.0
"""How long to wait for the answers to what was sent last."""


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        recipe: Which frames, how fast.
        address: The server's.
        policy: `live` or `replay`.
        duration_seconds: How long to stream, from the first frame; None: until the source ends.
        max_age_ns: Age at which an answer is of no use any more; 0: none.
        priority: Streams of a higher priority are served first.
        shared_memory: Whether frames go through memory that the server shares.
        tensors: Dense outputs to ask for where the engine has them.
        wait_seconds: How long to try while no server listens yet.
        clock_error_ns: Bound of the error of a `utc` clock.
    """

    recipe: Recipe
    address: str = DEFAULT_ADDRESS
    policy: Policy = "live"
    duration_seconds: float | None = None
    max_age_ns: int = 0
    priority: int = 0
    shared_memory: bool = False
    tensors: Sequence[str] = ("drivable",)
    wait_seconds: float = 0.0
    clock_error_ns: int = 0


@dataclass(frozen=True)
class Started:
    """What is known once the stream is open."""

    engine: Engine
    cameras: tuple[Camera, ...]
    statistics: Statistics
    clock: StreamClock


@dataclass(frozen=True)
class Report:
    """What a run leaves.

    Attributes:
        started: What was known at its start.
        summary: Figures.
        broken: What ended it early, where it was neither `stop` nor the time; None: nothing.
    """

    started: Started
    summary: dict[str, Any]
    broken: ClientError | None = None


async def run(
    options: Options,
    stop: asyncio.Event,
    on_start: Callable[[Started], None],
    on_result: Callable[[Result], None],
) -> Report:
    """Run it.

    Args:
        options: What to run.
        stop: Set it to end the run early.
        on_start: Called once, when the stream is open.
        on_result: Called with each result; must be quick.

    Raises:
        ClientError: The source or the stream cannot be opened; once it is open, see `Report.broken`.
    """
    clock = StreamClock(options.recipe.clock, options.clock_error_ns)
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(connect(options.address, wait_seconds=options.wait_seconds))
        engine = await server.engine()
        producer = Producer(options.recipe)
        await asyncio.to_thread(producer.__enter__)
        stack.push_async_callback(asyncio.to_thread, producer.__exit__, None, None, None)
        dense = {output.name for output in engine.outputs} & set(options.tensors)
        stream = await stack.enter_async_context(
            server.stream(
                producer.cameras,
                policy=options.policy,
                clock=clock,
                priority=options.priority,
                shared_memory=options.shared_memory,
                max_age_ns=options.max_age_ns,
                tensors=sorted(dense),
            )
        )
        statistics = Statistics(stream.cameras, stream.counts, clock.now_ns())
        started = Started(engine, producer.cameras, statistics, clock)
        on_start(started)
        broken: ClientError | None = None
        try:
            await _pump(options, stop, stream, producer, statistics, on_result)
        except ClientError as error:
            broken = error
        summary = {
            "engine": {
                "name": engine.name,
                "version": engine.version,
                "digest": engine.digest,
                "backend": f"{engine.backend} {engine.backend_version}".strip(),
                "target": engine.target,
                "precision": engine.precision,
                "degraded": engine.degraded,
                "memory_bytes": dict(engine.memory_bytes),
            },
            "stream": {
                "source": options.recipe.spec,
                "encoding": options.recipe.encoding,
                "policy": options.policy,
                "same_clock": stream.opened.same_clock,
                "credits": stream.opened.credits,
            },
            **statistics.summary(clock.now_ns()),
        }
        return Report(started, summary, broken)


async def _pump(
    options: Options,
    stop: asyncio.Event,
    stream: Stream,
    producer: Producer,
    statistics: Statistics,
    on_result: Callable[[Result], None],
) -> None:
    async def receive() -> None:
        async for result in stream:
            statistics.add(result, stream.clock.now_ns())
            on_result(result)

    first_step = asyncio.Event()

    async def send() -> None:
        while (step := await asyncio.to_thread(producer.next_step)) is not None:
            if not first_step.is_set():
                statistics.start(stream.clock.now_ns())
                first_step.set()
            for made in step:
                frame = Frame(
                    made.camera_id,
                    made.pixels,
                    capture_time_ns=made.capture_time_ns,
                    color_matrix="bt601" if options.recipe.encoding in ("nv12", "yuyv") else None,
                    context=made.image,
                )
                # Access units build on each other: none may be dropped, whatever the policy.
                if options.policy == "live" and options.recipe.encoding not in VIDEO_ENCODINGS:
                    stream.submit(frame)
                else:
                    await stream.send(frame)

    receiving, sending = asyncio.create_task(receive()), asyncio.create_task(send())
    stopping, starting = asyncio.create_task(stop.wait()), asyncio.create_task(first_step.wait())
    tasks: list[asyncio.Task[Any]] = [receiving, sending, stopping]
    try:
        await asyncio.wait([*tasks, starting], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait(tasks, timeout=options.duration_seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in (receiving, sending):
            if task.done():
                task.result()
        sending.cancel()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stream.finish(), DRAIN_SECONDS)
            await asyncio.wait_for(asyncio.shield(receiving), DRAIN_SECONDS)
    finally:
        for task in (*tasks, starting):
            task.cancel()
        await asyncio.gather(*tasks, starting, return_exceptions=True)
