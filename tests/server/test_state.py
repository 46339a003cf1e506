"""WatchState and the health service: the state at once, every change after, the newest for who reads slowly."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from protos.monocoque.v1 import state_pb2 as pb
from server.app import LIVENESS
from server.open_inference.service import SERVICE as OPEN_INFERENCE
from server.service import SERVICE
from server.state import State, StateFeed, Status
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, FakeTime, Running, serving
from tests.server.engines.test_swap import swap
from tests.server.raw_client import RawState, frame
from tests.server.test_drain import health


async def test_the_state_comes_at_once_and_is_that_of_every_engine(tmp_path: Path, engine: Engine) -> None:
    for name in ("front", "rear"):
        write_bundle(tmp_path / name, name=name)
    time = FakeTime()
    async with serving((), engine.open, time.host(), repository=tmp_path) as running:  # type: ignore[arg-type]
        watch = RawState(running.channel)
        first = await watch.next()
        assert first is not None
        assert (first.state, first.reason) == (pb.SERVER_STATE_SERVING, "")
        assert [(one.name, one.version, one.state) for one in first.engines] == [
            ("front", "1.0", pb.ENGINE_STATE_READY),
            ("rear", "1.0", pb.ENGINE_STATE_READY),
        ]
        assert first.engines[0].digest == running.server.catalogue.find("front").served.bundle.digest
        began = time.now_ns + 10**18
        assert first.since_utc_ns == first.engines[0].since_utc_ns == began
        time.now_ns += 1_000_000_000
        await running.server.catalogue.unload("front")
        second = await watch.next()
        assert second is not None
        assert [(one.name, one.since_utc_ns) for one in second.engines] == [("rear", began)]
        assert (second.state, second.since_utc_ns) == (pb.SERVER_STATE_SERVING, began)
        await running.server.catalogue.load("front")
        loaded = second
        while len(loaded.engines) < 2 or loaded.engines[1].state != pb.ENGINE_STATE_READY:
            (loaded,) = await watch.until(pb.SERVER_STATE_SERVING)  # the other one serves: nothing is degraded
        assert loaded.engines[1].since_utc_ns == began + 1_000_000_000


async def test_a_swap_is_told(bundle_path: Path, tmp_path: Path, engine: Engine) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    async with serving(bundle_path, engine.open) as running:
        watch = RawState(running.channel)
        await watch.next()
        outcome = await swap(running, bundle=str(new))
        told = await watch.next()
        assert told is not None
        assert (told.engines[0].version, told.engines[0].digest) == ("2.0", outcome.digest)
        assert told.state == pb.SERVER_STATE_SERVING


async def test_a_fallback_is_degraded_and_healthy(bundle_path: Path, engine: Engine) -> None:
    engine.degraded = "rtx is not available: no GPU"
    async with serving(bundle_path, engine.open) as running:
        (told,) = await RawState(running.channel).until(pb.SERVER_STATE_DEGRADED)
        assert told.reason == "quarters 1.0: rtx is not available: no GPU"
        assert told.engines[0].state == pb.ENGINE_STATE_READY
        assert [await health(running, name) for name in ("", LIVENESS)] == ["SERVING"] * 2


async def test_an_engines_thread_that_ended_asks_for_a_restart(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = RawState(running.channel)
    await watch.until(pb.SERVER_STATE_SERVING)

    def broken(_: int) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(running.server.mailbox, "take", broken)
    stream = await running.open_one("front")
    await stream.send(frame(1))  # wakes the thread, which then asks again
    (told,) = await watch.until(pb.SERVER_STATE_FAILED)
    assert "restart the server" in told.reason
    stub = health_pb2_grpc.HealthStub(running.channel)
    for name in ("", SERVICE, OPEN_INFERENCE, LIVENESS):
        async for response in stub.Watch(health_pb2.HealthCheckRequest(service=name)):
            if response.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                break


async def test_who_follows_the_state_takes_a_watchers_place(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, max_watchers=1) as running:
        first = RawState(running.channel)
        await first.next()
        assert "monocoque_watchers 1" in await running.metrics()
        second = RawState(running.channel)
        assert await second.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--max-watchers" in await second.call.details()
        results = running.watch()
        assert await results.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        first.call.cancel()
        await running.until(lambda: running.server.metrics.watchers()._value.get() == 0)
        results = running.watch()
        await results.started()


async def test_the_last_thing_told_is_that_it_drains(running: Running) -> None:
    watch = RawState(running.channel)
    await watch.next()
    await running.server.stop()
    told = await watch.next()
    assert told is not None
    assert (told.state, told.reason) == (pb.SERVER_STATE_DRAINING, "it is shutting down")
    assert await watch.next() is None
    assert await watch.call.code() is grpc.StatusCode.OK


async def test_who_reads_slowly_gets_the_newest_state_only() -> None:
    feed = StateFeed(FakeTime().host().utc_ns)
    watcher = feed.join()
    for number in range(1000):
        feed.update(Status(State.DEGRADED, f"reason {number}"))
    told = await watcher.next()
    assert told is not None
    assert told.reason == "reason 999"
    feed.update(Status(State.DEGRADED, "reason 999"))  # nothing new
    feed.update(Status(State.DRAINING, "it is shutting down"))
    feed.finish()
    told = await watcher.next()
    assert told is not None
    assert told.state is State.DRAINING
    assert await watcher.next() is None
