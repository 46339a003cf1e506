"""The client's side of shared memory, against the real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

import client
from client.frames import ENCODINGS, Encoding
from protos.monocoque.v1 import stream_pb2 as s
from tests.client.scripted import Script, well_behaved
from tests.client.scripted import serving as scripted
from tests.server.bundles import write_bundle
from tests.server.conftest import Engine, Running, serving

IMAGE = np.full((32, 64, 3), (255, 10, 10), np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "quarters")


@pytest.fixture
async def real(bundle: Path) -> AsyncIterator[Running]:
    async with serving(bundle) as running:
        yield running


def camera(encoding: Encoding = "rgb8", name: str = "front") -> client.Camera:
    return client.Camera(name, 64, 32, encoding)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if name in ("jpeg", "rgb8", "nv12", "gray8")])
async def test_one_argument_is_enough(real: Running, encoding: Encoding) -> None:
    frame = client.Frame("front", client.encode(IMAGE, encoding))
    seen = []
    for shared_memory in (False, True):
        async with (
            client.connect(real.addresses.frames) as server,
            server.stream([camera(encoding)], shared_memory=shared_memory) as stream,
        ):
            stream.submit(frame)
            result = await anext(stream)
        assert result.ok, result.reason
        assert result.memory.frame_bytes == np.asarray(frame.pixels).nbytes
        seen.append(result.detections)
    assert seen[0] == seen[1]


def test_a_slot_is_written_in_place_and_submitted_at_the_end_of_its_block(bundle: Path) -> None:
    async def server(stop: asyncio.Event, started: asyncio.Future[str]) -> None:
        async with serving(bundle) as running:
            started.set_result(running.addresses.frames)
            await stop.wait()

    async def main() -> None:
        stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(server(stop, started))
        await asyncio.to_thread(use, await started)
        stop.set()
        await task

    def use(address: str) -> None:
        with client.connect_sync(address) as server, server.stream([camera()], shared_memory=True) as stream:
            for number in range(20):
                with stream.slot("front", context=number) as pixels:
                    assert pixels.shape == (32, 64, 3)
                    pixels[:] = IMAGE
                result = next(stream)
                assert result.ok
                assert result.frame is not None and result.frame.context == number
            with pytest.raises(ZeroDivisionError), stream.slot("front"):
                raise ZeroDivisionError
            with stream.slot("front"), pytest.raises(client.StreamStalled, match="is being written"):
                for _ in range(10):
                    stream._stream.begin_slot("front")
            assert stream.counts["front"].submitted == 21

    asyncio.run(main())


async def test_conflation_gives_slots_back_and_every_frame_sent_is_answered(bundle: Path) -> None:
    engine = Engine(hold=True)
    async with (
        serving(bundle, engine.open) as running,
        client.connect(running.addresses.frames) as server,
        server.stream([camera()], shared_memory=True) as stream,
    ):
        for number in range(200):
            with stream.slot("front") as pixels:
                pixels[:] = number
            await asyncio.sleep(0)
        await asyncio.sleep(0.05)
        assert stream.counts["front"].in_flight <= 3
        engine.free()
        while stream.counts["front"].in_flight or not stream._exchange.outbox.is_empty():
            await stream._exchange.changed.wait()
        await stream.finish()
        results = [result async for result in stream]
    counts = stream.counts["front"]
    assert counts.submitted == 200 == counts.client_dropped + counts.sent
    assert counts.answered == counts.sent == len(results)
    assert {result.status for result in results} <= {"ok", "stale"}
    assert results[-1].sequence == 199


async def test_a_replay_through_shared_memory_answers_every_frame_in_order(real: Running) -> None:
    async with (
        client.connect(real.addresses.frames) as server,
        server.stream([camera(), camera(name="rear")], policy="replay", shared_memory=True) as stream,
    ):
        for _ in range(30):
            await stream.send(client.Frame("front", IMAGE))
            await stream.send(client.Frame("rear", IMAGE))
        await stream.finish()
        results = [result async for result in stream]
        with pytest.raises(client.StreamClosed):
            stream.begin_slot("front")
    assert len(results) == 60
    assert {result.status for result in results} == {"ok"}
    for name in ("front", "rear"):
        assert [r.sequence for r in results if r.camera_id == name] == list(range(30))


async def test_what_cannot_be_said_in_a_slot_is_explained(real: Running) -> None:
    async with client.connect(real.addresses.frames) as server:
        async with server.stream([camera("jpeg")], shared_memory=True) as stream:
            with pytest.raises(client.FrameInvalid, match="use submit"):
                stream.begin_slot("front")
            with pytest.raises(client.FrameInvalid, match="no camera 'rear'"):
                stream.begin_slot("rear")
        async with server.stream([camera()]) as stream:
            with pytest.raises(client.StreamClosed, match="shared_memory=True"):
                stream.begin_slot("front")


async def test_a_server_without_shared_memory_is_named_with_the_remedy(bundle: Path) -> None:
    async with (
        serving(bundle, shared_memory_socket="off") as running,
        client.connect(running.addresses.frames) as server,
    ):
        with pytest.raises(client.Rejected, match="--shared-memory-socket off"):
            async with server.stream([camera()], shared_memory=True):
                pass
    async with scripted(Script(well_behaved)) as address, client.connect(address) as server:
        with pytest.raises(client.Rejected, match="hands out no shared memory"):
            async with server.stream([camera()], shared_memory=True):
                pass


async def test_a_server_on_another_host_is_named_with_the_remedy(tmp_path: Path) -> None:
    from client.shared_memory import map_slots

    with pytest.raises(client.ServerUnreachable, match="on the server's host"):
        map_slots(s.SharedMemory(socket=str(tmp_path / "none"), token=b"x", region_bytes=1), "host:8001")
