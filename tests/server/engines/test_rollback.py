"""The engine that was swapped in fails its first frames: the one before serves again, and no frame is lost."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from pathlib import Path

import grpc
import pytest

from engine.bundle import Bundle
from engine.runtime import Runtime
from engine.slots import RegionTable
from protos.monocoque.v1 import result_pb2, stream_pb2
from server.engines.probation import BATCHES
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, Running, serving
from tests.server.engines.test_swap import refusal, swap
from tests.server.observe.test_metrics import samples
from tests.server.raw_client import RawStream, camera, frame


class Engines:
    """The engine that serves first, and the one whose `fails_at`th batch fails."""

    def __init__(self, fails_at: int | None) -> None:
        self.first, self.second = Engine(), Engine()
        self._fails_at = fails_at
        self.second.on_launch = self._launched

    def open(self, bundle: Bundle, regions: RegionTable) -> Runtime:
        return (self.first if bundle.manifest.version == "1.0" else self.second).open(bundle, regions)

    def _launched(self) -> None:
        if len(self.second.batches) == self._fails_at:
            raise RuntimeError("out of order")


async def one_by_one(stream: RawStream, first: int, count: int) -> list[result_pb2.Result]:
    results = []
    for sequence in range(first, first + count):
        await stream.send(frame(sequence))
        results += await stream.results(1)
    return results


def engine_threads() -> int:
    return sum(thread.name.startswith("engine-") for thread in threading.enumerate())


async def flowing(stream: RawStream, stop: asyncio.Event) -> int:
    """Send frames until told to stop; returns how many."""
    sent = 0
    while not stop.is_set():
        sent += 1
        await stream.send(frame(sent))
        await asyncio.sleep(0.002)
    return sent


async def open_with(running: Running, policy: int) -> RawStream:
    stream = running.stream()
    await stream.open([camera("front")], policy=policy)
    return stream


@pytest.mark.parametrize("policy", [stream_pb2.POLICY_LIVE, stream_pb2.POLICY_REPLAY])
@pytest.mark.parametrize("fails_at", [1, 2, BATCHES])
async def test_no_frame_is_lost_whenever_the_new_engine_fails(
    fails_at: int, policy: int, bundle_path: Path, tmp_path: Path
) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    engines = Engines(fails_at)
    async with serving(bundle_path, engines.open, overlap="on") as running:
        stream = await open_with(running, policy)
        stop = asyncio.Event()
        flow = asyncio.ensure_future(flowing(stream, stop))
        await engines.first.entered()
        if fails_at == 1:
            code, details = await refusal(running, bundle=str(new))
            assert code is grpc.StatusCode.FAILED_PRECONDITION
            assert "failed its first frames, and quarters 1.0 serves again" in details
            assert "out of order" in details
        else:
            await swap(running, bundle=str(new))
        lane = running.server.catalogue.find()
        await running.until(lambda: lane.version == "1.0")
        stop.set()
        sent = await flow
        results = await stream.finish()
        assert sorted(result.sequence for result in results) == list(range(1, sent + 1))
        statuses = Counter(result.status for result in results)
        assert set(statuses) <= {result_pb2.STATUS_OK, result_pb2.STATUS_STALE, result_pb2.STATUS_FAILED}
        assert statuses[result_pb2.STATUS_FAILED] == 1
        assert len(engines.second.batches) - fails_at in (0, 1)  # one more where that was prepared already
        await running.until(lambda: engine_threads() == 1)  # the new engine is gone
        page = await running.metrics()
        assert samples(page, "monocoque_engine_rollbacks_total") == {("quarters",): 1}
        assert [labels[2] for labels in samples(page, "monocoque_build_info")] == ["1.0"]
        await running.still_serves()
        assert [entry.version for entry in running.server.catalogue.index()] == ["1.0"]


async def test_an_engine_that_has_proved_itself_stays(bundle_path: Path, tmp_path: Path) -> None:
    new = write_bundle(tmp_path / "new", version="2.0")
    engines = Engines(BATCHES + 1)
    async with serving(bundle_path, engines.open) as running:
        await swap(running, bundle=str(new))  # nobody sends, so it does not wait for a first frame
        stream = await running.open_one("front")
        results = await one_by_one(stream, 1, BATCHES)
        assert {result.status for result in results} == {result_pb2.STATUS_OK}
        await running.until(lambda: engine_threads() == 1)  # the old engine is let go
        (failed,) = await one_by_one(stream, BATCHES + 1, 1)
        assert failed.status == result_pb2.STATUS_FAILED
        (again,) = await one_by_one(stream, BATCHES + 2, 1)
        assert again.status == result_pb2.STATUS_OK
        assert running.server.catalogue.find().version == "2.0"


async def test_another_swap_or_the_end_may_come_before_it_has(bundle_path: Path, tmp_path: Path) -> None:
    engines = Engines(None)
    async with serving(bundle_path, engines.open) as running:
        for version in ("2.0", "3.0"):
            await swap(running, bundle=str(write_bundle(tmp_path / version, version=version)))
        await running.until(lambda: engine_threads() == 2)
        await running.server.catalogue.unload("quarters")
        assert engine_threads() == 0
