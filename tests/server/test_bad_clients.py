"""Clients that vanish, break off or do not read: they leave nothing behind, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc.aio import insecure_channel

from protos.monocoque.v1 import result_pb2 as pb
from server.frames import Frame
from server.stream import outbox
from tests.server.conftest import Engine, Running
from tests.server.raw_client import RawStream, camera, frame


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
    await running.still_serves()
    del stream
    await running.until(no_frames_alive)


async def test_a_connection_that_breaks_in_the_middle_of_a_frame_leaves_nothing_behind(running: Running) -> None:
    bystander = await running.open_one("calm")
    async with breaking_after(200_000, running.addresses.frames) as address, insecure_channel(address) as channel:
        stream = RawStream(channel)
        await stream.open([camera(width=128, height=128)])
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for number in range(1000):  # the fifth is cut; how many more gRPC takes before it notices is its own affair
                await stream.call.write(frame(number, data=bytes(49_152), width=128, height=128))
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
        try:
            while left > 0 and (data := await reader.read(min(left, 65_536))):
                left -= len(data)
                to_server.write(data)
        finally:
            returning.cancel()
            for end in (to_server, writer):
                end.transport.abort()

    async with await asyncio.start_server(relay, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


def no_frames_alive() -> bool:
    gc.collect()
    return not [found for found in gc.get_objects() if isinstance(found, Frame)]


async def test_streams_that_come_and_go_leave_no_task_thread_or_slot(running: Running) -> None:
    await running.still_serves()
    await running.until(lambda: not running.server.core.sessions)
    tasks, threads = len(asyncio.all_tasks()), set(threading.enumerate())
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
    assert set(threading.enumerate()) <= threads  # one of an earlier test's may end meanwhile
    assert running.server.mailbox.depths() == {}
    await running.until(no_frames_alive)


async def test_a_client_that_never_reads_loses_its_stream_and_nobody_else_does(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MAX_UNREAD_BYTES", 1 << 20)
    bystander = await running.open_one("calm")
    stream = running.stream()
    await stream.open([camera()], tensors=["drivable"] * 20)  # results of 40 kB, far beyond what HTTP/2 buffers
    session = next(session for session in running.server.core.sessions if "front" in session.cameras)
    gone = weakref.ref(session)
    del session

    sequence = 0
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the end may come while it sends
        while len(running.server.core.sessions) == 2:
            await stream.send(frame(sequence))
            sequence += 1
    await running.until(lambda: len(running.server.core.sessions) == 1)
    await bystander.send(frame(1, "calm"))
    assert (await bystander.results(1))[0].status == pb.STATUS_OK
    while await stream.receive() is not None:  # now it reads: what was under way, then the reason
        pass
    code, details = await stream.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "were not read" in details
    del stream
    await running.until(lambda: (gc.collect(), gone() is None)[1])
