"""Subscribers: latest only, missed results counted, nobody held up."""

from __future__ import annotations

from pathlib import Path

import grpc

from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server.frames import CameraKey, OpenCamera
from server.observe.metrics import Metrics
from server.stream.watch import Watcher
from tests.server.conftest import Engine, Running, serving
from tests.server.raw_client import camera, frame


class NoOwner:
    """A stream that is not there."""

    replays = False

    def left_slot(self, _: object) -> None:
        """Nothing."""

    def deliver(self, _: object) -> None:
        """Nothing."""


def open_camera(camera_id: str) -> OpenCamera:
    spec = camera_pb2.Camera(id=camera_id)
    return OpenCamera(CameraKey("stream-1", camera_id), spec, NoOwner(), (), Metrics(4).camera(camera_id))


def result(sequence: int) -> bytes:
    return pb.Result(sequence=sequence).SerializeToString()


async def taken(watcher: Watcher) -> tuple[str, int, int]:
    message = await watcher.next()
    assert message is not None
    response = stream_pb2.WatchResultsResponse.FromString(message)
    return response.camera.id, response.result.sequence, response.missed


async def test_a_slow_watcher_gets_the_newest_result_of_each_camera_and_how_many_it_missed() -> None:
    watcher = Watcher(())
    front, rear = open_camera("front"), open_camera("rear")
    assert not watcher.offer(front, result(1))
    assert not watcher.offer(rear, result(1))
    assert watcher.offer(front, result(2))
    assert watcher.offer(front, result(3))
    assert await taken(watcher) == ("front", 3, 2)  # it waited first, and keeps its place
    assert not watcher.offer(front, result(4))
    assert await taken(watcher) == ("rear", 1, 0)
    assert await taken(watcher) == ("front", 4, 0)


async def test_a_watcher_sees_only_the_cameras_it_asked_for() -> None:
    watcher = Watcher(["rear"])
    watcher.offer(open_camera("front"), result(1))
    watcher.offer(open_camera("rear"), result(2))
    watcher.finish()
    assert await taken(watcher) == ("rear", 2, 0)
    assert await watcher.next() is None


async def test_watchers_see_what_the_sender_sees(running: Running) -> None:
    everyone, rear = running.watch(), running.watch("rear")
    await everyone.started()
    await rear.started()
    stream = running.stream()
    mounting = camera_pb2.Mounting(x_m=1.5)
    opened = await stream.open([camera("front", mounting=mounting), camera("rear")])
    await stream.send(frame(1, "front"))
    sent = (await stream.results(1))[0]
    seen = await everyone.next()
    assert seen is not None
    assert seen.result == sent
    assert (seen.stream_id, seen.missed) == (opened.stream_id, 0)
    assert seen.camera == camera("front", mounting=mounting)
    await stream.send(frame(1, "rear", data=b"short"))
    refused = await rear.next()
    assert refused is not None
    assert (refused.camera.id, refused.result.status) == ("rear", pb.STATUS_REFUSED)


async def test_a_watcher_that_does_not_read_holds_no_frame_up(running: Running, engine: Engine) -> None:
    watch = running.watch()
    await watch.started()
    stream = running.stream()
    await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY, tensors=["drivable"] * 100)  # 200 kB a result
    for sequence in range(100):
        await stream.send(frame(sequence))
        assert (await stream.results(1))[0].status == pb.STATUS_OK
    assert len(engine.batches) == 100
    sequences, missed = [], 0
    while not sequences or sequences[-1] != 99:
        seen = await watch.next()
        assert seen is not None
        sequences.append(seen.result.sequence)
        missed += seen.missed
    assert sequences == sorted(sequences)
    assert len(sequences) + missed == 100
    assert missed > 0


async def test_watchers_beyond_the_limit_are_refused(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, max_watchers=1) as running:
        first = running.watch()
        await first.started()
        second = running.watch()
        assert await second.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "--max-watchers" in await second.call.details()
        first.call.cancel()
        await running.until(lambda: running.server.metrics.watchers()._value.get() == 0)
        third = running.watch()
        await third.started()
