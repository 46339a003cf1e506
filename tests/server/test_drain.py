"""Shutting down: nothing new, everything accepted is answered, and whoever watches health knows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.monocoque.v1 import result_pb2 as pb
from protos.monocoque.v1 import stream_pb2
from server.app import LIVENESS
from server.engines.lane import UNLOADED
from server.service import SERVICE
from server.stream.session import ENDING
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import RawStream, camera, frame


async def health(running: Running, service: str) -> str:
    stub = health_pb2_grpc.HealthStub(running.channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


async def test_what_was_accepted_is_answered_and_nothing_new_is(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open) as running:
        assert [await health(running, name) for name in ("", SERVICE, LIVENESS)] == ["SERVING"] * 3
        watch = running.watch()
        await watch.started()
        engine.hold = True
        stream = running.stream()
        await stream.open([camera()])
        await stream.send(frame(1))
        await engine.entered()
        await stream.send(frame(2))
        await running.until(lambda: any(running.server.mailbox.depths().values()))
        stopping = asyncio.ensure_future(running.server.stop())
        await running.until(lambda: running.server.core.draining)
        assert [await health(running, name) for name in ("", SERVICE, LIVENESS)] == [
            "NOT_SERVING",
            "NOT_SERVING",
            "SERVING",
        ]
        late = running.stream()
        await late.send(stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera("b")])).SerializeToString())
        assert await late.receive() is None
        assert (await late.status())[0] is grpc.StatusCode.UNAVAILABLE
        assert "monocoque_serving 0" in await running.metrics()
        engine.free()
        results = []
        while (result := await stream.result()) is not None:
            results.append((result.sequence, result.status))
        assert results == [(1, pb.STATUS_OK), (2, pb.STATUS_OK)]
        assert (await stream.status())[0] is grpc.StatusCode.UNAVAILABLE
        seen = []
        while (watched := await watch.next()) is not None:
            seen.append(watched.result.sequence)
        assert seen in ([1, 2], [2])  # the newest at least
        await stopping


async def test_frames_that_cannot_be_computed_in_time_are_refused(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, drain_seconds=0) as running:
        engine.hold = True
        stream = running.stream()
        await stream.open([camera()])
        await stream.send(frame(1))
        await engine.entered()
        await stream.send(frame(2))
        await running.until(lambda: any(running.server.mailbox.depths().values()))
        stopping = asyncio.ensure_future(running.server.stop())
        refused = (await stream.results(1))[0]
        assert (refused.sequence, refused.status) == (2, pb.STATUS_REFUSED)
        assert "shutting down" in refused.reason
        engine.free()
        assert (await stream.results(1))[0].status == pb.STATUS_OK
        await stopping


async def replay_that_waits(running: Running, engine: Engine) -> tuple[RawStream, int]:
    """A replay with one frame in the engine, a full queue behind it and one more that waits for room there.

    Returns:
        The stream, and the number of the frame that waits; they are numbered from 0.
    """
    engine.hold = True
    stream = running.stream()
    opened = await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
    await stream.send(frame(0))
    await engine.entered()  # else the queue might still be full when the engine takes it, and nobody would be told
    for sequence in range(1, opened.credits + 2):
        await stream.send(frame(sequence))
    session = next(iter(running.server.core.sessions))
    await running.until(lambda: session.unanswered == opened.credits + 2)
    assert sum(running.server.mailbox.depths().values()) == opened.credits
    return stream, opened.credits + 1


async def test_a_replay_that_waits_for_room_is_let_go(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open) as running:
        stream, last = await replay_that_waits(running, engine)
        stopping = asyncio.ensure_future(running.server.stop())
        refused = (await stream.results(1))[0]
        assert (refused.sequence, refused.status, refused.reason) == (last, pb.STATUS_REFUSED, ENDING)
        engine.free()
        results = await stream.results(last)
        assert [(result.sequence, result.status) for result in results] == [(n, pb.STATUS_OK) for n in range(last)]
        assert await stream.result() is None
        assert (await stream.status())[0] is grpc.StatusCode.UNAVAILABLE
        await stopping


async def test_a_replay_whose_engine_is_unloaded_is_let_go(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open) as running:
        stream, last = await replay_that_waits(running, engine)
        unloading = asyncio.ensure_future(running.server.catalogue.unload("quarters"))
        results = await stream.results(last)
        assert sorted(result.sequence for result in results) == list(range(1, last + 1))
        assert {(result.status, result.reason) for result in results} == {(pb.STATUS_REFUSED, UNLOADED)}
        engine.free()
        computed = await stream.finish()
        assert [(result.sequence, result.status) for result in computed] == [(0, pb.STATUS_OK)]
        await unloading


async def test_reflection_lists_the_service(real: Running) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(real.channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
    names = {service.name async for response in call for service in response.list_services_response.service}
    assert names >= {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_a_dead_engine_thread_shows_in_health(
    running: Running, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(running.server.mailbox, "take", broken)
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(frame(1))  # wakes the thread, which then asks again
    for name in ("", SERVICE, LIVENESS):
        while await health(running, name) == "SERVING":
            await asyncio.sleep(0.001)
