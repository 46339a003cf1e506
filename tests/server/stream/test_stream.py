"""Frames over a real socket, with an engine that a test can hold, slow down and break."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from tests.server.conftest import Engine, FakeTime, Running, serving
from tests.server.raw_client import camera, frame, pixels


def statuses(results: list[pb.Result]) -> dict[int, str]:
    return {result.sequence: pb.Status.Name(result.status).removeprefix("STATUS_") for result in results}


async def test_a_frame_comes_back_with_its_detections_and_its_ledger(real: Running) -> None:
    stream = real.stream()
    intrinsics = camera_pb2.Intrinsics(fx_px=64.0)
    opened = await stream.open([camera(intrinsics=intrinsics)])
    assert (opened.max_width, opened.max_height) == (128, 128)
    assert list(opened.labels) == ["dark", "bright"]
    await stream.send(frame(7, capture_time_ns=123))
    result = (await stream.results(1))[0]
    assert (result.camera_id, result.sequence, result.capture_time_ns) == ("front", 7, 123)
    assert (result.status, result.valid, result.reason) == (pb.STATUS_OK, True, "")
    assert [found.label for found in result.detections] == ["dark", "bright"]
    dark = result.detections[0]
    assert dark.score == pytest.approx(200 / 255, abs=1e-3)
    # The network sees 32x16, the frame is 64x32: boxes are twice as large.
    assert (dark.x_min, dark.y_min, dark.x_max, dark.y_max) == (0, 0, 32, 32)
    # Twice the pixels at twice the focal length: the network's metres are the camera's.
    assert dark.distance_m == pytest.approx(10)
    assert result.batch_size == 1
    assert result.engine_digest == opened.engine_digest
    assert result.memory.frame_bytes == result.memory.decoded_bytes == 64 * 32 * 3
    assert result.memory.process_resident_bytes > 0
    stages = [value for field, value in result.ledger.ListFields() if field.name not in _NOT_STAGES]
    assert sum(stages) == result.ledger.total_ns
    assert len(stages) == 8
    assert result.ledger.answered_at_ns - result.ledger.received_at_ns == result.ledger.total_ns
    assert not result.ledger.HasField("transport_ns")  # the clock was not declared
    assert result.age.lower_bound
    assert await stream.finish() == []
    assert (await stream.status())[0] is grpc.StatusCode.OK


_NOT_STAGES = {"total_ns", "received_at_ns", "answered_at_ns", "transport_uncertainty_ns"}


async def test_distance_is_unset_where_the_focal_length_is_unknown(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera()])
    await stream.send(frame(1))
    result = (await stream.results(1))[0]
    assert not result.detections[0].HasField("distance_m")


async def test_dense_outputs_come_beside_detections_where_they_are_asked_for(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera()], tensors=["drivable"])
    await stream.send(frame(1))
    result = (await stream.results(1))[0]
    assert len(result.detections) == 2
    assert [(tensor.name, tensor.dtype, list(tensor.shape)) for tensor in result.tensors] == [
        ("drivable", "float32", [1, 16, 32])
    ]
    assert len(result.tensors[0].data) == 16 * 32 * 4


async def test_live_serves_the_newest_frame_and_answers_the_others_stale(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(frame(0, data=pixels(10)))
    await engine.entered()
    for sequence in range(1, 6):
        await stream.send(frame(sequence, data=pixels(10 + sequence)))
    stale = await stream.results(4)  # at once: the engine is still busy with the first
    assert statuses(stale) == dict.fromkeys((1, 2, 3, 4), "STALE")
    assert all(result.reason and not result.valid for result in stale)
    engine.free()
    assert statuses(await stream.results(2)) == {0: "OK", 5: "OK"}
    assert engine.batches == [[10.0], [15.0]]  # nothing that was replaced was computed
    await stream.finish()
    assert stream.credits == {"front": 6}


async def test_replay_computes_every_frame_in_order_and_holds_the_client_back(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = running.stream()
    opened = await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
    depth = opened.credits
    for sequence in range(depth + 3):  # one is computed, `depth` wait, one waits for room, one is not even read
        await stream.send(frame(sequence, data=pixels(10 + sequence)))
        if sequence == 0:  # of an engine as fast as this, the stream is told at the end that a frame left its slot
            await engine.entered()
    session = next(iter(running.server.core.sessions))
    await running.until(lambda: session.unanswered == depth + 2)
    engine.free()
    results = await stream.results(depth + 3)
    assert [result.sequence for result in results] == list(range(depth + 3))
    assert set(statuses(results).values()) == {"OK"}
    await stream.finish()
    assert stream.credits == {"front": depth + 3}


@pytest.mark.parametrize("overlap", ["off", "on"])
async def test_each_frame_is_answered_exactly_once_whatever_happens(
    bundle_path: Path, engine: Engine, overlap: str
) -> None:
    launches = 0

    def now_and_then() -> None:
        nonlocal launches
        launches += 1
        engine.fail = "now and then" if launches % 3 == 0 else ""

    engine.on_launch = now_and_then
    names = ["front", "left", "right"]
    async with serving(bundle_path, engine.open, overlap=overlap) as running:
        stream = running.stream()
        await stream.open([camera(name) for name in names])
        sent = {(name, sequence) for name in names for sequence in range(40)}
        for name, sequence in sorted(sent, key=lambda item: item[1]):
            wrong = sequence % 7 == 3
            await stream.send(frame(sequence, name, data=b"short" if wrong else None))
        results = await stream.finish()
    assert sorted((result.camera_id, result.sequence) for result in results) == sorted(sent)
    for name in names:
        own = [result for result in results if result.camera_id == name]
        computed = [result.sequence for result in own if result.status == pb.STATUS_OK]
        assert computed == sorted(computed)
        assert {result.sequence for result in own if result.status == pb.STATUS_REFUSED} == {3, 10, 17, 24, 31, 38}
        for result in own:
            stages = [value for field, value in result.ledger.ListFields() if field.name not in _NOT_STAGES]
            assert sum(stages) == result.ledger.total_ns


async def test_a_frame_past_its_age_when_its_turn_comes_is_late(bundle_path: Path, engine: Engine) -> None:
    time = FakeTime()
    async with serving(bundle_path, engine.open, time.host()) as running:
        engine.hold = True
        stream = running.stream()
        clock = stream_pb2.Clock(kind=stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC, boot_id="boot", time_namespace="time")
        opened = await stream.open([camera()], max_age_ns=1000, clock=clock)
        assert opened.clock_kind == stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC
        await stream.send(frame(1, capture_time_ns=time.now_ns))
        await engine.entered()
        await stream.send(frame(2, capture_time_ns=time.now_ns))
        await running.until(lambda: any(running.server.mailbox.depths().values()))
        time.now_ns += 1001
        engine.free()
        one, two = sorted(await stream.results(2), key=lambda result: result.sequence)
        assert one.status == pb.STATUS_OK  # launched in time; how long it took is another matter
        assert two.status == pb.STATUS_LATE
        assert "maximum age" in two.reason
        assert two.age.age_ns == 1001
        assert not two.age.lower_bound
        assert len(engine.batches) == 1


async def test_a_frame_that_ages_while_it_is_decoded_is_not_launched(bundle_path: Path, engine: Engine) -> None:
    time = FakeTime()
    host = time.host()
    ticking = type(host)(
        monotonic_ns=lambda: setattr(time, "now_ns", time.now_ns + 100) or time.now_ns,  # type: ignore[func-returns-value]
        boot_id="boot",
        time_namespace="time",
    )
    async with serving(bundle_path, engine.open, ticking) as running:
        stream = running.stream()
        await stream.open([camera()])
        # Received, offered, taken, begun, selected, decoded, batched, preprocessed: each look at the clock costs a
        # tick, and whoever waits for a frame may look once more.
        await stream.send(frame(1, max_age_ns=450))
        result = (await stream.results(1))[0]
        assert result.status == pb.STATUS_LATE
        assert "before the engine was launched" in result.reason
        assert engine.batches == []


async def test_cameras_share_a_batch_where_the_configuration_says_so(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, max_batch=4) as running:
        engine.hold = True
        stream = running.stream()
        names = ["a", "b", "c", "d", "e"]
        await stream.open([camera(name) for name in names])
        await stream.send(frame(1, "a"))
        await engine.entered()
        for value, name in enumerate(names):
            await stream.send(frame(2, name, data=pixels(10 + value)))
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == 5)
        engine.free()
        results = await stream.results(6)
        assert [len(batch) for batch in engine.batches] == [1, 4, 1]
        assert engine.batches[1] == [11.0, 12.0, 13.0, 14.0]  # `a` was served last, so it goes last
        assert {result.batch_size for result in results} == {1, 4}


async def test_a_higher_priority_goes_first(running: Running, engine: Engine) -> None:
    engine.hold = True
    low, high = running.stream(), running.stream()
    await low.open([camera("rear"), camera("side")], priority=0)
    await high.open([camera("front")], priority=5)
    await low.send(frame(1, "rear", data=pixels(1)))
    await engine.entered()
    await low.send(frame(2, "side", data=pixels(2)))
    await low.send(frame(2, "rear", data=pixels(3)))
    await high.send(frame(1, "front", data=pixels(4)))
    await running.until(lambda: sum(running.server.mailbox.depths().values()) == 3)
    engine.free()
    await low.results(3)
    await high.results(1)
    assert engine.batches == [[1.0], [4.0], [2.0], [3.0]]


async def test_an_engine_failure_costs_its_frames_and_no_more(running: Running, engine: Engine) -> None:
    stream = running.stream()
    await stream.open([camera()])
    engine.fail = "out of luck"
    await stream.send(frame(1))
    failed = (await stream.results(1))[0]
    assert failed.status == pb.STATUS_FAILED
    assert "out of luck" in failed.reason
    engine.fail = ""
    await stream.send(frame(2))
    assert (await stream.results(1))[0].status == pb.STATUS_OK


async def test_numbers_that_are_not_finite_are_said_to_be_invalid(running: Running, engine: Engine) -> None:
    engine.nan = True
    stream = running.stream()
    await stream.open([camera()])
    await stream.send(frame(1))
    result = (await stream.results(1))[0]
    assert result.status == pb.STATUS_OK
    assert not result.valid
    assert "not a finite number" in result.reason


async def test_a_clock_probe_is_answered_with_the_servers_clock(bundle_path: Path, engine: Engine) -> None:
    time = FakeTime()
    async with serving(bundle_path, engine.open, time.host()) as running:
        stream = running.stream()
        await stream.open([camera()])
        probe = stream_pb2.ClockProbe(client_time_ns=42)
        await stream.send(stream_pb2.StreamFramesRequest(clock_probe=probe).SerializeToString())
        await stream.finish()
        (reply,) = stream.clock_replies
        assert reply.client_time_ns == 42
        assert reply.server_receive_time_ns == reply.server_send_time_ns == time.now_ns


async def test_get_engine_says_what_is_served(real: Running) -> None:
    call = real.channel.unary_unary("/monocoque.v1.CameraStreamService/GetEngine")
    engine = stream_pb2.GetEngineResponse.FromString(await call(b""))
    assert (engine.name, engine.version, engine.backend, engine.graph) == ("quarters", "1.0", "onnxruntime", "float")
    assert list(engine.inputs[0].shape) == [-1, 16, 32, 3]
    assert [spec.name for spec in engine.outputs] == ["scores", "classes", "boxes", "distances", "drivable"]
    assert engine.max_batch == 8
    assert engine.memory_bytes["weights"] > 0
