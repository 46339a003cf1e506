"""Surround sets over the wire: answered together, with what was missing and what all cameras see around the vehicle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.postprocess import Detections
from protos.monocoque.v1 import camera_pb2, result_pb2, stream_pb2
from server.stream.birdseye import View, merge, place
from tests.server.conftest import Engine, Running
from tests.server.raw_client import camera, frame

MS = 1_000_000
NAMES = ("front", "left", "right")
SETS = stream_pb2.Sets(tolerance_ns=5 * MS)


def mounted(camera_id: str, yaw_rad: float, x_m: float = 0.0, **fields: object) -> camera_pb2.Camera:
    spec = camera(camera_id, **fields)
    spec.intrinsics.CopyFrom(camera_pb2.Intrinsics(fx_px=64, fy_px=64, cx_px=32, cy_px=16))
    spec.mounting.CopyFrom(camera_pb2.Mounting(x_m=x_m, z_m=1.5, yaw_rad=yaw_rad))
    return spec


async def test_a_set_is_answered_together_and_its_objects_are_merged(running: Running, engine: Engine) -> None:
    stream = running.stream()
    await stream.open([mounted("front", 0.0), mounted("left", 0.0), camera("right")], sets=SETS)
    for index, name in enumerate(NAMES):
        await stream.send(frame(1, name, capture_time_ns=1000 * MS + index * MS))
    results = await stream.results(3)
    assert [(one.camera_id, one.set_number, one.status) for one in results] == [
        (name, 1, result_pb2.STATUS_OK) for name in NAMES
    ]
    await stream.finish()
    (found,) = stream.sets
    assert [(one.camera_id, one.sequence, one.offset_ns) for one in found.frames] == [
        (name, 1, index * MS) for index, name in enumerate(NAMES)
    ]
    assert (found.number, found.spread_ns, found.cause) == (1, 2 * MS, result_pb2.SET_CAUSE_COMPLETE)
    assert (list(found.missing), list(found.unplaced)) == ([], ["right"])
    # Two cameras look the same way from the same place: each object is there once, and both are said to see it.
    assert [(one.label, sorted(one.camera_ids)) for one in found.objects] == [
        ("dark", ["front", "left"]),
        ("bright", ["front", "left"]),
    ]
    near = found.objects[0]
    assert near.distance_m == pytest.approx(math.hypot(near.x_m, near.y_m))
    for result in results:
        ledger = result.ledger
        stages = [ledger.queue_ns, ledger.decode_ns, ledger.batch_ns, ledger.preprocess_ns, ledger.launch_ns]
        stages += [ledger.inference_ns, ledger.postprocess_ns, ledger.answer_ns, ledger.transport_ns]
        assert sum(stages) == ledger.total_ns


async def test_a_dead_camera_is_missing_and_not_waited_for_again(running: Running, engine: Engine) -> None:
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES], sets=SETS)
    results = []
    for turn in range(1, 4):
        for name in NAMES[:2]:  # `right` is dead
            await stream.send(frame(turn, name, capture_time_ns=(100 + 33 * turn) * MS))
            if turn == 2 and name == NAMES[0]:  # it ends the first set, which a newer one must not replace
                results += await stream.results(2)
    results += await stream.finish()
    assert stream.sets[0].cause == result_pb2.SET_CAUSE_NEXT
    assert {one.cause for one in stream.sets[1:]} == {result_pb2.SET_CAUSE_COMPLETE}
    assert all(list(one.missing) == ["right"] for one in stream.sets)
    counted = {status: sum(one.status == status for one in results) for status in {one.status for one in results}}
    assert sum(counted.values()) == 6
    assert set(counted) <= {result_pb2.STATUS_OK, result_pb2.STATUS_STALE}


async def test_a_waiting_set_is_replaced_as_a_whole(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES[:2]], sets=SETS)
    for turn in range(1, 4):
        for name in NAMES[:2]:
            await stream.send(frame(turn, name, capture_time_ns=33 * turn * MS))
        if turn == 1:
            await engine.entered()
    stale = await stream.results(2)
    assert [(one.camera_id, one.sequence, one.status) for one in stale] == [
        (name, 2, result_pb2.STATUS_STALE) for name in NAMES[:2]
    ]
    engine.free()
    results = await stream.results(4)
    assert [(one.sequence, one.camera_id) for one in results] == [(turn, name) for turn in (1, 3) for name in NAMES[:2]]
    await stream.finish()
    assert [one.number for one in stream.sets] == [1, 2]


async def test_every_frame_of_a_replay_is_in_one_set(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES[:2]], sets=SETS, policy=stream_pb2.POLICY_REPLAY)
    for turn in range(1, 21):
        for name in NAMES[:2]:
            await stream.send(frame(turn, name, capture_time_ns=33 * turn * MS))
    results = await stream.finish()
    assert [(one.sequence, one.camera_id) for one in results] == [
        (turn, name) for turn in range(1, 21) for name in NAMES[:2]
    ]
    assert all(one.status == result_pb2.STATUS_OK for one in results)
    assert [one.number for one in stream.sets] == list(range(1, 21))


async def test_a_deadline_forces_an_incomplete_set(running: Running) -> None:
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES], sets=SETS, max_age_ns=200 * MS)
    await stream.send(frame(1, "left"))
    (result,) = await stream.results(1)  # nothing else came: only time can have ended the wait
    await stream.finish()
    assert result.status in (result_pb2.STATUS_OK, result_pb2.STATUS_LATE)
    (found,) = stream.sets
    assert (found.cause, list(found.missing)) == (result_pb2.SET_CAUSE_DEADLINE, ["front", "right"])


async def test_a_stream_that_ends_leaves_no_frame_of_a_set_behind(running: Running, engine: Engine) -> None:
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES], sets=SETS)
    await stream.send(frame(1, "front"))
    await running.until(lambda: any(running.server.mailbox.depths().values()))
    stream.call.cancel()
    await running.until(lambda: running.frames("undelivered") == 1)
    assert running.server.mailbox.depths() == {}


def test_an_object_lies_where_its_camera_says() -> None:
    found = Detections(
        scores=np.array([0.9], np.float32),
        classes=np.array([1]),
        boxes=np.array([[28, 8, 36, 24]], np.float32),
        distances=np.array([10], np.float32),
        finite=True,
    )
    for yaw_rad, where in ((0.0, (12.0, 0.0)), (math.pi / 2, (2.0, 10.0)), (math.pi, (-8.0, 0.0))):
        view = View.of(mounted("one", yaw_rad, x_m=2.0))
        assert view is not None
        (placed,) = place(found, view)
        assert (placed.x_m, placed.y_m) == pytest.approx(where, abs=1e-9)
        assert placed.distance_m == pytest.approx(10)
    assert View.of(camera("unknown")) is None


def test_two_objects_of_one_camera_are_never_merged() -> None:
    found = Detections(
        scores=np.array([0.9, 0.8], np.float32),
        classes=np.array([1, 1]),
        boxes=np.array([[28, 8, 36, 24]] * 2, np.float32),
        distances=np.array([10, 10], np.float32),
        finite=True,
    )
    one, other = View.of(mounted("one", 0.0)), View.of(mounted("other", 0.0))
    assert one is not None
    assert other is not None
    merged = merge([*place(found, one), *place(found, other)])
    assert [item.camera_ids for item in merged] == [("one", "other")] * 2
