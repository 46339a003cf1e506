"""A client that cancels its stream is counted as such."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.server.conftest import Running

ROOT = Path(__file__).resolve().parents[3]
LEAVES = """
import asyncio
import sys
from grpc.aio import insecure_channel
from tests.server.raw_client import RawStream, camera, frame

async def leave(channel, number):
    stream = RawStream(channel)
    await stream.open([camera(f"c{number}")])
    await stream.send(frame(0, f"c{number}"))
    await stream.results(1)
    stream.call.cancel()

async def main():
    async with insecure_channel(sys.argv[1]) as channel:
        for round in range(60):
            await asyncio.gather(*(leave(channel, 4 * round + number) for number in range(4)))

asyncio.run(main())
"""


async def test_a_client_that_cancels_is_never_counted_as_one_that_was_done(running: Running) -> None:
    """gRPC tells the reader that the messages have ended, and the call that it is cancelled, in any order.

    Where the client shares the server's interpreter, the order is nearly always the harmless one.
    """
    client = await asyncio.create_subprocess_exec(sys.executable, "-c", LEAVES, running.addresses.frames, cwd=ROOT)
    assert await client.wait() == 0
    await running.until(lambda: not running.server.core.sessions)
    ended = {code: running.server.metrics.streams_ended(code)._value.get() for code in ("OK", "CANCELLED")}
    assert ended == {"OK": 0, "CANCELLED": 240}
