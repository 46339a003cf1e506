"""Six cameras at 30 frames/s with 6.2 MB each, and an engine and cores that cannot follow.

What is old has waited somewhere. So nothing may wait: the frames that the client, the transport and the server hold
are counted while it runs, whatever the machine's mood.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import client
from server.stream.opening import FRAMES_HELD, LIVE_CREDITS
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, serving

NAMES = ("front_wide", "front_narrow", "left_front", "right_front", "left_rear", "right_rear")
WIDTH, HEIGHT = 1920, 1080
FRAMES_PER_SECOND = 30
SHOTS = 25


def burn(started: multiprocessing.synchronize.Event, stop: multiprocessing.synchronize.Event) -> None:
    """Keep a core busy."""
    started.set()
    while not stop.is_set():
        sum(range(10_000))


@pytest.fixture
def saturated_cores() -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    started = [context.Event() for _ in range(2)]
    burners = [context.Process(target=burn, args=(one, stop), daemon=True) for one in started]
    for burner in burners:
        burner.start()
    for one in started:
        assert one.wait(60)
    yield
    stop.set()
    for burner in burners:
        burner.join()


@pytest.mark.parametrize("shared_memory", [False, True], ids=["bytes", "shared memory"])
async def test_nothing_waits_but_the_freshest_frame_and_every_frame_is_accounted_for(
    tmp_path: Path, shared_memory: bool, saturated_cores: None
) -> None:
    engine = Engine(hold=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    cameras = [client.Camera(name, WIDTH, HEIGHT, "rgb8") for name in NAMES]
    statuses: Counter[str] = Counter()
    async with (
        serving(write_bundle(tmp_path / "bundle"), engine.open, max_frame=f"{WIDTH}x{HEIGHT}", overlap="on") as running,
        client.connect(running.addresses.frames) as server,
        server.stream(cameras, shared_memory=shared_memory) as stream,
    ):

        async def read() -> None:
            async for result in stream:
                statuses[result.status] += 1

        async def compute() -> None:
            """An engine that takes a fifth of what comes."""
            while True:
                await asyncio.sleep(5 / (FRAMES_PER_SECOND * len(NAMES)))
                engine.release()

        reading, computing = asyncio.ensure_future(read()), asyncio.ensure_future(compute())
        most_waiting = most_in_flight = 0
        for _ in range(SHOTS):
            for name in NAMES:
                stream.submit(client.Frame(name, pixels))
                await asyncio.sleep(1 / (FRAMES_PER_SECOND * len(NAMES)))
            most_waiting = max(most_waiting, sum(running.server.mailbox.depths().values()))
            most_in_flight = max(most_in_flight, *(counts.in_flight for counts in stream.counts.values()))
        engine.free()
        outbox = stream._exchange.outbox
        while not outbox.is_empty() or any(counts.in_flight for counts in stream.counts.values()):
            await stream._exchange.changed.wait()
        await stream.finish()
        await reading
        computing.cancel()
        counts = dict(stream.counts)

    # Per camera, one frame waits, one is on its way, one in the engine, one half received.
    assert most_waiting <= len(NAMES)
    assert most_in_flight <= LIVE_CREDITS + FRAMES_HELD + 1
    # Every frame is accounted for, once.
    assert sum(one.submitted for one in counts.values()) == SHOTS * len(NAMES)
    for one in counts.values():
        assert one.submitted == one.client_dropped + one.sent
        assert one.sent == one.answered
    assert sum(statuses.values()) == sum(one.sent for one in counts.values())
    assert set(statuses) <= {"ok", "stale"}
    told = sum(running.server.metrics.camera(name).client_dropped._value.get() for name in NAMES)
    dropped = sum(one.client_dropped for one in counts.values())
    assert dropped + statuses["stale"] > 0  # or it was no overload
    assert told == dropped  # with the frame after them, and each camera's last frame was sent
