"""How streams begin, are taken over, get stuck and end; whatever happens, a stream beside them does not notice."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest
from grpc.aio import insecure_channel

from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server import grpc_options, service
from server.host.process_memory import ProcessMemory
from tests.server.bystander import undisturbed
from tests.server.conftest import Engine, FakeTime, Running, serving
from tests.server.half_messages import HalfSender
from tests.server.raw_client import RawStream, camera, frame
from tests.server.relays import stalling


def opening(*cameras: camera_pb2.Camera) -> bytes:
    return stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=cameras)).SerializeToString()


async def refused(stream: RawStream) -> tuple[grpc.StatusCode, str]:
    """How a stream that is not accepted ends."""
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        await stream.send(opening(camera("late")))
    assert await stream.receive() is None
    return await stream.status()


async def test_streams_beyond_the_limit_are_told_at_once_on_the_same_connection_too(bundle_path: Path) -> None:
    async with serving(bundle_path, max_streams=2, max_watchers=0) as running, undisturbed(running):
        await running.open_one("front")
        endings = await asyncio.gather(*(refused(running.stream()) for _ in range(130)))
    assert {code for code, _ in endings} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert any("2 streams are open, 2 are allowed" in details and "--max-streams" in details for _, details in endings)


async def test_a_camera_that_reconnects_takes_over_from_its_half_open_stream(bundle_path: Path, engine: Engine) -> None:
    async with (
        serving(bundle_path, engine.open, max_streams=2, max_cameras=3) as running,
        undisturbed(running),
        stalling(running.addresses.frames) as (address, pulled),
        insecure_channel(address) as channel,
    ):
        old = RawStream(channel)
        await old.open([camera(), camera("rear")])
        await old.send(frame(1))
        assert (await old.results(1))[0].status == pb.STATUS_OK
        pulled.set()
        new = await running.open_one("front")  # neither the limit of streams nor that of cameras is in its way
        await new.send(frame(0))
        (result,) = await new.results(1)
        assert (result.status, result.sequence) == (pb.STATUS_OK, 0)
        assert [list(session.cameras) for session in running.server.core.sessions if "calm" not in session.cameras] == [
            ["front"]
        ]
        await running.until(lambda: running.server.metrics.streams_ended("ABORTED")._value.get() == 1)
        old.call.cancel()


async def test_the_stream_that_was_taken_over_from_is_told_and_its_frames_are_counted(
    running: Running, engine: Engine
) -> None:
    engine.hold = True
    old = await running.open_one("front")
    await old.send(frame(1))
    await engine.entered()
    await old.send(frame(2))
    await running.until(lambda: any(running.server.mailbox.depths().values()))
    new = await running.open_one("front")
    while await old.receive() is not None:
        pass
    code, details = await old.status()
    assert code is grpc.StatusCode.ABORTED
    assert "SUPERSEDED: stream-" in details
    assert "sends front now" in details
    assert "an id of its own" in details
    engine.free()
    await running.until(lambda: running.frames("undelivered") == 2)  # one that waited, one in the engine
    await new.send(frame(7))
    assert [result.sequence for result in await new.results(1)] == [7]
    assert (await new.finish(), (await new.status())[0]) == ([], grpc.StatusCode.OK)


async def test_a_stream_that_is_refused_takes_nothing_over(running: Running) -> None:
    old = await running.open_one("front")
    stream = running.stream()
    await stream.send(opening(camera("front"), *(camera(f"c{number}") for number in range(40))))
    assert await stream.receive() is None
    await old.send(frame(1))
    assert (await old.results(1))[0].status == pb.STATUS_OK


async def test_a_half_open_connection_is_found_by_keepalive(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_options, "KEEPALIVE_MS", 1000)  # half of it is what a busy machine has for an answer
    async with (
        serving(bundle_path) as running,
        undisturbed(running),
        stalling(running.addresses.frames) as (address, pulled),
        insecure_channel(address) as channel,
    ):
        stream = RawStream(channel)
        await stream.open([camera()])
        assert len(running.server.core.sessions) == 2
        pulled.set()
        await running.until(lambda: len(running.server.core.sessions) == 1)
        stream.call.cancel()


async def test_thousands_of_half_sent_messages(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "OPEN_SECONDS", 1.0)
    async with serving(bundle_path, max_frame="1920x1080") as running, undisturbed(running):
        attackers = [await HalfSender.connect(running.addresses.frames) for _ in range(20)]
        before = ProcessMemory(lambda: 0).resident_bytes()
        for _ in range(100):
            for attacker in attackers:
                await attacker.begin("/monocoque.v1.CameraStreamService/StreamFrames", 6_000_000, 600)
        ended = running.server.metrics.streams_ended("DEADLINE_EXCEEDED")
        await running.until(lambda: ended._value.get() > 0)  # those that were let in; the rest were refused at once
        grown = ProcessMemory(lambda: 0).resident_bytes() - before
        assert grown < running.server.settings.memory_budget / 4
        for attacker in attackers:
            await attacker.close()
        await running.until(lambda: len(running.server.core.sessions) == 1)
        await running.still_serves()


async def test_a_call_that_never_opens_is_told_so(real: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "OPEN_SECONDS", 0.05)
    stream = real.stream()
    assert await stream.receive() is None
    code, details = await stream.status()
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no whole message came within 0.05 s → send `open`" in details


async def test_connections_are_capped(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc_options, "OTHER_CONNECTIONS", 8)
    async with serving(bundle_path, max_streams=2, max_watchers=0) as running, undisturbed(running):
        idle = [await HalfSender.connect(running.addresses.frames) for _ in range(200)]
        await running.until(lambda: sum(one.closed for one in idle) >= 150)
        for one in idle:
            await one.close()


async def test_thousands_of_camera_ids(bundle_path: Path) -> None:
    async with serving(bundle_path, max_cameras=33) as running, undisturbed(running):
        for round_number in range(100):
            stream = running.stream()
            await stream.open([camera(f"c{round_number}-{number}") for number in range(32)])
            await stream.send(frame(1, f"c{round_number}-7"))
            await stream.send(frame(1, "x" * (1 + round_number)))  # and ids that were never opened
            assert len(await stream.results(2)) == 2
            await stream.finish()
        page = await running.metrics()
    names = {line.split('camera="')[1].split('"')[0] for line in page.splitlines() if 'camera="' in line}
    assert len(names) <= 34
    assert "other" in names
    assert running.server.mailbox.depths() == {}


async def test_every_kind_of_bad_frame_beside_a_good_stream(real: Running) -> None:
    jpeg = camera_pb2.ENCODING_JPEG
    bad = [
        (frame(5), pb.STATUS_OK, ""),
        (frame(5), pb.STATUS_REFUSED, "sequence 5 does not follow 5"),
        (frame(4), pb.STATUS_REFUSED, "sequence 4 does not follow 5"),
        (frame(6, width=128, height=64, data=bytes(128 * 64 * 3)), pb.STATUS_REFUSED, "this frame is 128x64"),
        (frame(6, data=b""), pb.STATUS_REFUSED, "takes 6144 bytes, 0 came"),
        (frame(6, width=0, height=0, data=b""), pb.STATUS_REFUSED, "this frame is 0x0"),
        (frame(6, data=bytes(6143)), pb.STATUS_REFUSED, "takes 6144 bytes, 6143 came"),
        (frame(6, data=bytes(60_000)), pb.STATUS_REFUSED, "takes 6144 bytes, 60000 came"),
        (frame(6, encoding=jpeg), pb.STATUS_REFUSED, "this frame is JPEG"),
        (frame(2**64 - 1), pb.STATUS_OK, ""),
        (frame(0), pb.STATUS_REFUSED, "does not follow 18446744073709551615"),
    ]
    async with undisturbed(real):
        stream = real.stream()
        await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
        for message, status, reason in bad:
            await stream.send(message)
            (result,) = await stream.results(1)
            assert (result.status, reason in result.reason) == (status, True), result.reason
        assert await stream.finish() == []
    assert real.frames("refused") == 9


async def test_a_frame_that_is_too_large_names_its_size_and_the_flag(real: Running) -> None:
    stream = real.stream()
    await stream.open([camera(encoding=camera_pb2.ENCODING_JPEG)])
    await stream.send(frame(1, data=bytes(100_000), encoding=camera_pb2.ENCODING_JPEG))
    (result,) = await stream.results(1)
    assert "100000 bytes of pixels, at most" in result.reason
    assert "--max-frame" in result.reason


async def test_clocks_that_jump_are_counted_and_every_age_stays_true(bundle_path: Path, engine: Engine) -> None:
    time = FakeTime()
    clock = stream_pb2.Clock(kind=stream_pb2.CLOCK_KIND_SYNCHRONIZED, error_ns=1_000_000)
    async with serving(bundle_path, engine.open, time.host()) as running:
        stream = running.stream()
        await stream.open([camera()], clock=clock, policy=stream_pb2.POLICY_REPLAY)
        ages = []
        for number, jump_ns in enumerate((0, 0, 3600 * 10**9, -3600 * 10**9, 0)):
            utc_ns = time.now_ns + 10**18 + jump_ns
            await stream.send(frame(number, capture_time_ns=utc_ns - 5_000_000, client_send_time_ns=utc_ns))
            (result,) = await stream.results(1)
            assert result.status == pb.STATUS_OK
            ages.append((result.age.age_ns, result.age.lower_bound))
            time.now_ns += 33_000_000
    # in the future: cannot be; an hour ago: may well be, if the frame was recorded
    assert ages == [
        (5_000_000, False),
        (5_000_000, False),
        (0, True),
        (3600 * 10**9 + 5_000_000, False),
        (5_000_000, False),
    ]
    assert running.server.metrics.clock_steps("client")._value.get() == 2
    assert running.server.metrics.clock_steps("server")._value.get() == 0


@pytest.mark.parametrize(
    ("kind", "utc_offset_ns", "said"),
    [
        (stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC, 10**18, "999999999.995 s after it came"),
        (stream_pb2.CLOCK_KIND_SYNCHRONIZED, 0, "1000000000.005 s before it came"),
    ],
)
async def test_a_capture_time_of_another_clock_is_told_once_and_ages_count_from_receipt(
    bundle_path: Path,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    kind: stream_pb2.ClockKind.ValueType,
    utc_offset_ns: int,
    said: str,
) -> None:
    caplog.set_level("INFO", "monocoque.stream")
    time = FakeTime()
    clock = stream_pb2.Clock(kind=kind, boot_id="boot", time_namespace="time")
    async with serving(bundle_path, engine.open, time.host()) as running:
        stream = running.stream()
        opened = await stream.open([camera()], clock=clock, max_age_ns=1_000_000)
        assert opened.clock_kind == kind
        for number in range(3):
            await stream.send(frame(number, capture_time_ns=time.now_ns - 5_000_000 + utc_offset_ns))
            (result,) = await stream.results(1)
            assert (result.status, result.age.age_ns, result.age.lower_bound) == (pb.STATUS_OK, 0, True)
        counted = {clock: running.server.metrics.clock_steps(clock)._value.get() for clock in ("client", "capture")}
    assert counted == {"client": 0, "capture": 1}
    (line,) = [record.getMessage() for record in caplog.records if record.name == "monocoque.stream"]
    assert f"frame 0 of front was captured {said}" in line
