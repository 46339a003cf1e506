"""The client against `python -m server`, over the loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import client
from client.frames import ENCODINGS, Encoding
from demo.errors import DemoError
from demo.serving import Serving
from tests.server.bundles import LABELS, write_bundle

OPTICS = client.Intrinsics(320.0, 320.0, 32.0, 16.0)
IMAGE = np.full((32, 64, 3), (255, 10, 10), np.uint8)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("server")
    with Serving(write_bundle(folder / "bundle"), folder / "server.log") as server:
        yield server
    assert server.exit_code == 0


def camera(encoding: Encoding = "rgb8", name: str = "front") -> client.Camera:
    return client.Camera(name, 64, 32, encoding, intrinsics=OPTICS, mounting=client.Mounting(x_m=2.0))


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_every_encoding_comes_back_with_the_same_objects(serving: Serving, encoding: Encoding) -> None:
    async with client.connect(serving.address) as server, server.stream([camera(encoding)]) as stream:
        matrix = "bt601" if encoding in ("nv12", "yuyv") else None
        frame = client.Frame("front", client.encode(IMAGE, encoding), color_matrix=matrix)  # type: ignore[arg-type]
        stream.submit(frame)
        result = await anext(stream)
    assert (result.status, result.reason) == ("ok", "")
    assert result.ok
    assert result.memory.frame_bytes == np.asarray(frame.pixels).nbytes
    if not encoding.startswith("gray"):
        (found,) = result.detections
        assert found.label == LABELS[0]
        assert found.score == pytest.approx(1, abs=0.05)
        assert found.distance_m is not None


async def test_a_large_frame_goes_in_pieces_and_has_left_when_send_returns(serving: Serving) -> None:
    large = client.Camera("front", 1024, 512, "rgb8")
    image = np.empty((512, 1024, 3), np.uint8)
    async with client.connect(serving.address) as server, server.stream([large], policy="replay") as stream:
        assert 0 < stream.opened.piece_bytes < image.nbytes
        for value in (200, 150, 100):
            image[:] = value
            await stream.send(client.Frame("front", image))
            image[:] = 255
        await stream.finish()
        results = [result async for result in stream]
    assert [result.memory.frame_bytes for result in results] == [image.nbytes] * 3
    scores = [result.detections[0].score for result in results]
    assert scores == pytest.approx([200 / 255, 150 / 255, 100 / 255], abs=0.001)


async def test_one_clock_is_proved_and_the_ledger_adds_up(serving: Serving) -> None:
    async with client.connect(serving.address) as server, server.stream([camera()], tensors=["drivable"]) as stream:
        assert stream.opened.same_clock
        assert stream.clock_offset == client.Offset(0, 0)
        stream.submit(client.Frame("front", IMAGE))
        result = await anext(stream)
    stages = result.ledger.stages()
    assert list(stages) == [
        "transport", "queue", "decode", "batch", "preprocess", "launch", "inference", "postprocess", "answer",
        "returned",
    ]  # fmt: skip
    assert sum(stages.values()) == result.ledger.end_to_end_ns
    assert min(stages.values()) >= 0
    assert result.tensors["drivable"].dtype == np.float32
    assert result.age.returned_ns is not None
    assert result.age.answered_ns <= result.age.returned_ns


@pytest.mark.parametrize("other_clock_ns", [time.time_ns(), -time.time_ns()], ids=["ahead", "behind"])
async def test_a_capture_time_of_another_clock_gives_no_age_of_years(serving: Serving, other_clock_ns: int) -> None:
    async with client.connect(serving.address) as server, server.stream([camera()]) as stream:
        stream.submit(client.Frame("front", IMAGE, capture_time_ns=other_clock_ns))
        result = await anext(stream)
    assert (result.ok, result.capture_time_ns) == (True, other_clock_ns)
    assert (result.age.returned_ns, result.ledger.held_ns) == (None, None)
    assert result.age.lower_bound
    assert 0 < result.age.answered_ns < 60 * 10**9
    assert sum(result.ledger.stages().values()) == result.ledger.end_to_end_ns


async def test_an_unknown_clock_is_estimated_by_probes(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.clock.host_identity", lambda: ("another-boot", "time:[1]"))
    async with client.connect(serving.address) as server, server.stream([camera()]) as stream:
        assert not stream.opened.same_clock
        while (offset := stream.clock_offset) is None:
            await stream._exchange.changed.wait()
        assert abs(offset.offset_ns) <= offset.uncertainty_ns, "it is the same clock after all"
        stream.submit(client.Frame("front", IMAGE))
        result = await anext(stream)
    assert result.age.lower_bound
    assert sum(result.ledger.stages().values()) == result.ledger.end_to_end_ns
    assert result.ledger.uncertainty_ns > 0


async def test_a_replay_answers_every_frame_in_order(serving: Serving) -> None:
    async with client.connect(serving.address) as server:
        async with server.stream([camera(), camera(name="rear")], policy="replay") as stream:
            for _ in range(20):
                await stream.send(client.Frame("front", IMAGE))
                await stream.send(client.Frame("rear", IMAGE))
            await stream.finish()
            results = [result async for result in stream]
            assert stream.undelivered == 0
        assert len(results) == 40
        for name in ("front", "rear"):
            assert [r.sequence for r in results if r.camera_id == name] == list(range(20))


async def test_a_flood_is_dropped_at_the_client_and_every_sent_frame_is_answered(serving: Serving) -> None:
    async with client.connect(serving.address) as server, server.stream([camera()]) as stream:
        for _ in range(200):
            stream.submit(client.Frame("front", IMAGE))
        while not stream._exchange.outbox.is_empty():
            await stream._exchange.changed.wait()
        await stream.finish()
        results = [result async for result in stream]
        counts = stream.counts["front"]
    assert counts.client_dropped > 150
    assert len(results) == counts.sent == counts.answered
    assert results[-1].sequence == 199


async def test_watchers_see_what_the_sender_sees(serving: Serving) -> None:
    async with client.connect(serving.address) as server, client.connect(serving.address) as other:
        watching = server.watch(["watched"])
        waiting = anext(watching)
        task = asyncio.ensure_future(waiting)
        async with other.stream([camera(name="watched")]) as stream:
            while not task.done():
                stream.submit(client.Frame("watched", IMAGE))
                await asyncio.wait([task], timeout=0.05)
        seen = task.result()
        await watching.aclose()
    assert seen.camera == camera(name="watched")
    assert [d.label for d in seen.result.detections] == [LABELS[0]]


async def test_a_truncated_jpeg_fails_alone(serving: Serving) -> None:
    async with client.connect(serving.address) as server, server.stream([camera("jpeg")]) as stream:
        whole = client.encode(IMAGE, "jpeg").tobytes()
        statuses = []
        for pixels in (whole, whole[:60], whole):
            stream.submit(client.Frame("front", pixels))
            statuses.append((await anext(stream)).status)
    assert statuses[1] in ("refused", "failed")
    assert statuses[::2] == ["ok", "ok"]


async def test_the_servers_refusal_is_passed_on(serving: Serving) -> None:
    async with client.connect(serving.address) as server:
        with pytest.raises(client.Rejected, match="'nothing'") as refused:
            async with server.stream([camera()], tensors=["nothing"]):
                pass
        assert refused.value.code == "INVALID_ARGUMENT"
        assert (await server.engine()).labels == LABELS


@pytest.mark.parametrize("way", [[], ["--shared-memory"]], ids=["bytes", "shared memory"])
def test_the_command_streams_watches_and_sums_up(serving: Serving, tmp_path: Path, way: list[str]) -> None:
    for number in range(5):
        (tmp_path / "cam").mkdir(exist_ok=True)
        cv2.imwrite(str(tmp_path / "cam" / f"{number}.png"), IMAGE)
    done = subprocess.run(
        [sys.executable, "-m", "client", "stream", str(tmp_path), "--server", serving.address, "--policy", "replay",
         "--json", *way],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary["cameras"]["cam"]["statuses"] == {"ok": 5}
    assert summary["stream"]["same_clock"] is True


async def test_a_server_that_is_killed_is_reported(tmp_path: Path) -> None:
    with (
        pytest.raises(DemoError, match="ended by itself, with exit code -9"),
        Serving(write_bundle(tmp_path / "bundle"), tmp_path / "server.log") as serving,
    ):
        async with client.connect(serving.address) as server, server.stream([camera()]) as stream:
            stream.submit(client.Frame("front", IMAGE))
            await anext(stream)
            os.kill(serving._process.pid, signal.SIGKILL)
            with pytest.raises(client.ConnectionLost, match="lost the server"):
                await anext(stream)
        serving._process.wait()


async def test_a_server_that_stops_in_good_order_answers_what_it_has(tmp_path: Path) -> None:
    with Serving(write_bundle(tmp_path / "bundle"), tmp_path / "server.log") as serving:
        async with client.connect(serving.address) as server, server.stream([camera()]) as stream:
            stream.submit(client.Frame("front", IMAGE))
            await anext(stream)
            stopping = asyncio.create_task(asyncio.to_thread(serving.stop))
            with pytest.raises(client.ClientError):
                async for _ in stream:
                    pass
            assert stream.undelivered == 0
            await stopping
    assert serving.exit_code == 0


async def test_connections_of_another_thread_leave_nothing_for_their_closed_loops(serving: Serving) -> None:
    """gRPC hands the events of all loops to one of them, here this one, which is late with them on busy cores."""
    late: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: late.append(context))

    def use() -> None:
        with client.connect_sync(serving.address) as server, server.stream([camera()]) as stream:
            stream.submit(client.Frame("front", IMAGE))
            assert next(stream).ok

    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        async with client.connect(serving.address):
            for _ in range(80):
                using = asyncio.create_task(asyncio.to_thread(use))
                while not using.done():
                    await asyncio.sleep(0.001)
                    time.sleep(0.001)
                await using
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert late == []
