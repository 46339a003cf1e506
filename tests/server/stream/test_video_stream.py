"""Compressed video over a real socket: one answer per access unit, whatever is lost, reordered or broken off."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server.decode import video as video_module
from server.stream.video_queue import MAX_WAITING
from tests.server.conftest import Engine, Running
from tests.server.decode.videos import HEIGHT, WIDTH, video
from tests.server.raw_client import RawStream, camera, frame

H264, H265 = camera_pb2.ENCODING_H264, camera_pb2.ENCODING_H265
SIZE: dict[str, Any] = {"width": WIDTH, "height": HEIGHT}
OK, STALE, WAITING = pb.STATUS_OK, pb.STATUS_STALE, pb.STATUS_WAITING_FOR_KEYFRAME


async def open_video(running: Running, encoding: int, policy: int) -> RawStream:
    stream = running.stream()
    await stream.open([camera(encoding=encoding, **SIZE)], policy=policy)
    return stream


def unit(sequence: int, data: bytes, encoding: int) -> bytes:
    return frame(sequence, data=data, encoding=encoding, **SIZE)


@pytest.mark.parametrize("encoding", [H264, H265])
@pytest.mark.parametrize("bframes", [0, 2])
async def test_a_replay_computes_every_picture_in_the_order_of_capture(
    real: Running, encoding: int, bframes: int
) -> None:
    units = video(encoding, 16, bframes=bframes)  # as many as wait at once, credits unread
    stream = await open_video(real, encoding, stream_pb2.POLICY_REPLAY)
    for sequence, (_, data) in enumerate(units):
        await stream.send(unit(sequence, data, encoding))
    results = await stream.finish()
    assert [result.status for result in results] == [OK] * 16
    assert [units[result.sequence][0] for result in results] == list(range(16))


async def test_after_a_loss_frames_wait_for_the_next_keyframe(real: Running) -> None:
    stream = await open_video(real, H264, stream_pb2.POLICY_REPLAY)
    for sequence, (_, data) in enumerate(video(H264, 12)):
        if sequence != 2:
            await stream.send(unit(sequence, data, H264))
    results = {result.sequence: result for result in await stream.finish()}
    assert sorted(results) == [0, 1, *range(3, 12)]
    assert {sequence for sequence, result in results.items() if result.status == WAITING} == {3, 4, 5}
    assert {sequence for sequence, result in results.items() if result.status == OK} == {0, 1, *range(6, 12)}
    assert "keyframe" in results[3].reason
    assert real.frames("waiting_for_keyframe") == 3


async def test_pictures_are_conflated_after_decoding(running: Running, engine: Engine) -> None:
    """While the engine computes the first, the others are all decoded, and the last of them is what goes next."""
    engine.hold = True
    stream = await open_video(running, H264, stream_pb2.POLICY_LIVE)
    units = video(H264, 12, keyframe_every=100)
    await stream.send(unit(0, units[0][1], H264))
    await engine.entered()
    for sequence in range(1, 12):
        await stream.send(unit(sequence, units[sequence][1], H264))
    # Three are left: the one that is computed, perhaps one that is prepared, and the newest.
    await running.until(lambda: running.frames("stale") >= 9)
    engine.free()
    results = await stream.finish()
    computed = [result.sequence for result in results if result.status == OK]
    assert computed[0] == 0
    assert computed[-1] == 11
    assert len(computed) <= 3
    assert sorted(result.sequence for result in results) == list(range(12))
    assert {result.status for result in results} == {OK, STALE}


async def test_credit_comes_back_when_a_unit_is_decoded(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = await open_video(running, H264, stream_pb2.POLICY_LIVE)
    for sequence, (_, data) in enumerate(video(H264, 3)):
        await stream.send(unit(sequence, data, H264))
        while stream.credits.get("front", 0) <= sequence:
            response = await stream.receive()
            assert response is not None
            if response.WhichOneof("message") == "credit":
                stream.credits["front"] = stream.credits.get("front", 0) + response.credit.frames
    engine.free()
    await stream.finish()


async def test_a_replay_gives_no_credit_while_pictures_wait(running: Running, engine: Engine) -> None:
    engine.hold = True
    stream = await open_video(running, H264, stream_pb2.POLICY_REPLAY)
    units = video(H264, 14)
    for sequence, (_, data) in enumerate(units):
        await stream.send(unit(sequence, data, H264))
    await engine.entered()
    (session,) = running.server.core.sessions
    await running.until(lambda: session._video["front"]._waiting == 0)
    assert session._video["front"]._owed_credits > 0
    engine.free()
    results = await stream.finish()
    assert [(result.sequence, result.status) for result in results] == [(number, OK) for number in range(14)]
    assert stream.credits["front"] == 14


async def test_a_client_that_sends_without_credit_is_refused_and_waits_for_a_keyframe(
    real: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More access units than may wait: the rest is refused, which is a loss like any other."""
    go = threading.Event()
    decode = video_module.VideoDecoder.decode

    def slow(self: Any, header: Any, pixels: Any) -> Any:
        assert go.wait(10)
        return decode(self, header, pixels)

    monkeypatch.setattr(video_module.VideoDecoder, "decode", slow)
    stream = await open_video(real, H264, stream_pb2.POLICY_LIVE)
    units = video(H264, 2 * MAX_WAITING, keyframe_every=100)
    for sequence, (_, data) in enumerate(units[: MAX_WAITING + 3]):
        await stream.send(unit(sequence, data, H264))
    refused = await stream.results(3)
    assert {result.status for result in refused} == {pb.STATUS_REFUSED}
    assert "access units wait to be decoded" in refused[0].reason
    go.set()
    (session,) = real.server.core.sessions
    await real.until(lambda: session._video["front"]._waiting < MAX_WAITING)
    await stream.send(unit(MAX_WAITING + 3, units[MAX_WAITING + 3][1], H264))
    rest = await stream.finish()
    assert len(rest) == MAX_WAITING + 1
    assert next(result for result in rest if result.sequence == MAX_WAITING + 3).status == WAITING


async def test_a_stream_that_breaks_off_leaves_nothing(real: Running) -> None:
    for _ in range(5):
        stream = await open_video(real, H265, stream_pb2.POLICY_REPLAY)
        for sequence, (_, data) in enumerate(video(H265, 6, bframes=2)[:4]):
            await stream.send(unit(sequence, data, H265))
        stream.call.cancel()
    await real.until(lambda: not real.server.core.sessions)
    await real.until(lambda: not _video_threads())
    await real.still_serves()


async def test_a_damaged_unit_costs_its_own_group_and_no_other_camera(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera(encoding=H264, **SIZE), camera("side")], policy=stream_pb2.POLICY_REPLAY)
    for sequence, (_, data) in enumerate(video(H264, 12, noise=5)):
        cut = data[: len(data) // 2] if sequence == 2 else data
        await stream.send(unit(sequence, cut, H264))
        await stream.send(frame(sequence, "side"))
    results = await stream.finish()
    side = [result.status for result in results if result.camera_id == "side"]
    front = {result.sequence: result.status for result in results if result.camera_id == "front"}
    assert side == [OK] * 12
    assert [front[sequence] for sequence in range(12)] == [OK, OK, pb.STATUS_FAILED, *[WAITING] * 3, *[OK] * 6]


async def test_without_pyav_the_open_says_what_to_install(real: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_module, "missing", lambda: "PyAV is not installed here (No module named 'av')")
    stream = real.stream()
    await stream.send(
        stream_pb2.StreamFramesRequest(
            open=stream_pb2.Open(cameras=[camera(encoding=H264, **SIZE)])
        ).SerializeToString()
    )
    assert await stream.receive() is None
    code, details = await stream.status()
    assert code.name == "FAILED_PRECONDITION"
    assert "PyAV is not installed here" in details
    assert "pip install 'monocoque[video]'" in details


def _video_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("video ")]
