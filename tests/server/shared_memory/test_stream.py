"""Frames in shared memory, from a client that keeps the rules and from those that do not."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest

from protos.monocoque.v1 import camera_pb2, stream_pb2
from protos.monocoque.v1 import result_pb2 as pb
from server.shared_memory.region import BorrowedSlot
from tests.server.conftest import Engine, Running, complaints, serving
from tests.server.raw_client import camera, frame, pixels
from tests.server.shared_memory.raw_slots import sharing


async def test_a_frame_is_read_where_it_was_written(real: Running) -> None:
    async with sharing(real) as slots:
        await slots.send(1)
        (result,) = await slots.stream.results(1)
    assert (result.status, result.valid) == (pb.STATUS_OK, True)
    assert result.memory.frame_bytes == len(pixels())
    assert [found.label for found in result.detections] == ["dark", "bright"]


async def test_a_slot_serves_frame_after_frame(real: Running) -> None:
    async with sharing(real) as slots:
        for sequence in range(1, 20):
            await slots.send(sequence)
            assert (await slots.stream.results(1))[0].status == pb.STATUS_OK


async def test_neither_side_can_change_the_size(real: Running) -> None:
    async with sharing(real) as slots:
        for size in (0, slots.granted.region_bytes - 1, slots.granted.region_bytes + 4096):
            with pytest.raises(PermissionError):
                os.ftruncate(slots.fd, size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(slots.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        await slots.send(1)
        assert (await slots.stream.results(1))[0].status == pb.STATUS_OK


async def test_pixels_that_change_while_the_frame_waits_are_torn(running: Running, engine: Engine) -> None:
    engine.hold = True
    async with sharing(running, camera(), camera("rear")) as slots:
        await slots.send(1, "rear")
        await engine.entered()
        await slots.send(1)
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == 1)
        slots.write(slots.slots().first_slot, pixels(9), generation=4)  # the client does not keep its word
        engine.free()
        results = {result.camera_id: result for result in await slots.stream.results(2)}
    assert results["rear"].status == pb.STATUS_OK  # its slot was read before, and nobody touched it
    assert results["front"].status == pb.STATUS_TORN
    assert "written to before the answer" in results["front"].reason
    assert running.frames("torn") == 1


async def test_a_slot_that_is_written_to_during_the_read_is_torn_and_not_computed(
    running: Running, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = itertools.count(1)
    check = BorrowedSlot.intact

    async with sharing(running) as slots:

        def and_a_writer_comes(slot: BorrowedSlot) -> bool:
            if next(checks) == 2:  # the first is on receipt, the second once the pixels were read
                slots.stamp(slots.slots().first_slot, 3)
            return check(slot)

        monkeypatch.setattr(BorrowedSlot, "intact", and_a_writer_comes)
        await slots.send(1)
        (result,) = await slots.stream.results(1)
        assert result.status == pb.STATUS_TORN
        assert engine.batches == []
        monkeypatch.undo()
        await slots.send(2)
        assert (await slots.stream.results(1))[0].status == pb.STATUS_OK


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"slot": 5}, "slot 5 is not one of camera front: those are 0 to 4"),
        ({"slot": 2**32 - 1}, "slot 4294967295 is not one of camera front"),
        ({"size_bytes": 2**63}, "9223372036854775808 bytes of pixels, a slot of camera front has"),
        ({"size_bytes": 0}, "takes 6144 bytes, 0 came"),
        ({"size_bytes": 6143}, "takes 6144 bytes, 6143 came"),
        ({"generation": 3}, "generation 3 of slot 0 is odd"),
    ],
)
async def test_a_handle_that_makes_no_sense_is_refused_with_both_values(
    real: Running, fields: dict[str, int], reason: str
) -> None:
    async with sharing(real, camera(), camera("rear")) as slots:
        slots.write(0, pixels(), 2)
        slots.stamp(0, fields.get("generation", 2))
        handle = {"slot": 0, "generation": 2, "size_bytes": 6144} | fields
        await slots.hand(1, "front", **handle)
        (result,) = await slots.stream.results(1)
        assert (result.status, reason in result.reason) == (pb.STATUS_REFUSED, True), result.reason
        slots.write(0, pixels(), 4)
        await slots.hand(2, "front", 0, 4, 6144)
        assert (await slots.stream.results(1))[0].status == pb.STATUS_OK


async def test_a_generation_of_another_frame_is_torn(real: Running) -> None:
    async with sharing(real) as slots:
        slots.write(0, pixels(), 8)
        await slots.hand(1, "front", 0, 6, 6144)
        assert (await slots.stream.results(1))[0].status == pb.STATUS_TORN


async def test_a_slot_is_the_servers_until_the_answer(running: Running, engine: Engine) -> None:
    engine.hold = True
    async with sharing(running) as slots:
        await slots.send(1)
        await engine.entered()
        await slots.hand(2, "front", 0, 2, 6144)
        (result,) = await slots.stream.results(1)
        assert result.status == pb.STATUS_REFUSED
        assert "slot 0 is the server's until the frame that it holds was answered" in result.reason
        engine.free()
        assert (await slots.stream.results(1))[0].sequence == 1


async def test_bytes_on_a_stream_with_shared_memory_and_the_reverse_are_refused(real: Running) -> None:
    async with sharing(real) as slots:
        await slots.stream.send(frame(1))
        (result,) = await slots.stream.results(1)
        assert "opened with shared memory" in result.reason
    stream = await real.open_one("front")
    header = camera_pb2.FrameHeader(camera_id="front", sequence=1, encoding=3, width=64, height=32)
    handle = stream_pb2.SlotHandle(slot=0, generation=2, size_bytes=6144)
    await stream.send(stream_pb2.StreamFramesRequest(frame=header, slot=handle).SerializeToString())
    assert "opened without shared memory" in (await stream.results(1))[0].reason


async def test_a_file_that_changes_after_its_check_is_not_decoded(running: Running, engine: Engine) -> None:
    """Its header was checked: what is decoded must be what was checked."""
    good = cv2.imencode(".png", np.full((32, 64, 3), 200, np.uint8))[1].tobytes()
    engine.hold = True
    async with sharing(running, camera(encoding=camera_pb2.ENCODING_PNG), camera("rear")) as slots:
        await slots.send(1, "rear")
        await engine.entered()
        await slots.send(1, data=good, encoding=camera_pb2.ENCODING_PNG)
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == 1)
        bomb = cv2.imencode(".png", np.zeros((2000, 2000, 3), np.uint8))[1].tobytes()
        start = slots.slots().offset_bytes
        slots.map[start : start + len(bomb)] = bomb  # and the generation stays as it was
        engine.free()
        results = {result.camera_id: result for result in await slots.stream.results(2)}
    assert results["front"].status == pb.STATUS_OK
    assert results["front"].memory.decoded_bytes == 64 * 32 * 3


async def test_the_memory_counts_against_the_budget(bundle_path: Path) -> None:
    async with serving(bundle_path, memory_budget="100K") as running:
        stream = running.stream()
        opening = stream_pb2.Open(cameras=[camera(width=128, height=128)], shared_memory=True)
        await stream.send(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
        assert await stream.receive() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "102400 of 102400 are left" in details
        assert "--memory-budget" in details


async def test_a_server_without_says_how_to_get_it(bundle_path: Path) -> None:
    async with serving(bundle_path, shared_memory_socket="off") as running:
        stream = running.stream()
        opening = stream_pb2.Open(cameras=[camera()], shared_memory=True)
        await stream.send(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
        assert await stream.receive() is None
        code, details = await stream.status()
        assert code is grpc.StatusCode.FAILED_PRECONDITION
        assert "--shared-memory-socket off" in details
        await running.still_serves()


def memfds() -> int:
    """Descriptors of shared memory that this process holds."""
    return sum(map(_is_shared, Path("/proc/self/fd").iterdir()))


def _is_shared(descriptor: Path) -> bool:
    try:
        return "memfd:monocoque" in str(descriptor.readlink())
    except OSError:  # the one that lists the directory
        return False


def mapped() -> int:
    """Maps of shared memory in this process."""
    return Path("/proc/self/maps").read_text().count("memfd:monocoque")


CLIENT = """
import sys, client, numpy as np
camera = client.Camera("doomed", 64, 32, "rgb8")
with client.connect_sync(sys.argv[1]) as server, server.stream([camera], shared_memory=True) as stream:
    stream.submit(client.Frame("doomed", np.full((32, 64, 3), 200, np.uint8)))
    print(next(stream).status, flush=True)
    sys.stdin.read()
"""


async def test_the_memory_of_a_killed_client_is_reclaimed(real: Running) -> None:
    before = memfds(), mapped()
    command = [sys.executable, "-c", CLIENT, real.addresses.frames]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    try:
        assert await asyncio.to_thread(process.stdout.readline) == b"ok\n"
        assert memfds() > before[0]
        process.send_signal(signal.SIGKILL)
        await real.until(lambda: not real.server.core.sessions)
        await real.until(lambda: (memfds(), mapped()) == before)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    await real.still_serves()


async def test_streams_that_come_and_go_leave_no_memory(real: Running) -> None:
    before = memfds(), mapped()
    for index in range(30):
        stream = real.stream()
        await stream.open([camera()], shared_memory=True)
        if index % 2:
            stream.call.cancel()
        else:
            await stream.finish()
        await real.until(lambda: not real.server.core.sessions)
    await real.until(lambda: (memfds(), mapped()) == before)
    # ... and one that leaves while its memory is being made
    for _ in range(10):
        stream = real.stream()
        opening = stream_pb2.Open(
            cameras=[camera(f"c{n}", width=128, height=128) for n in range(16)], shared_memory=True
        )
        await stream.send(stream_pb2.StreamFramesRequest(open=opening).SerializeToString())
        stream.call.cancel()
    await real.until(lambda: not real.server.core.sessions)
    await real.until(lambda: (memfds(), mapped()) == before)


async def test_a_client_that_keeps_its_map_keeps_no_memory(running: Running, engine: Engine) -> None:
    engine.hold = True
    async with sharing(running) as slots:
        await slots.send(1)
        await engine.entered()
        assert os.fstat(slots.fd).st_blocks > 0
        slots.stream.call.cancel()
        await running.until(lambda: not running.server.core.sessions)
        engine.free()
        await running.until(lambda: os.fstat(slots.fd).st_blocks == 0)


async def test_a_frame_that_comes_while_its_stream_is_taken_over_is_no_surprise(
    real: Running, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(10):
        async with sharing(real) as slots:
            (old,) = real.server.core.sessions
            await slots.send(1)
            await slots.hand(2, "front", 1, 0, 6144)
            new = await real.open_one("front")
            assert old.superseded.done()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await slots.hand(3, "front", 2, 0, 6144)
            await new.finish()
    assert complaints(caplog) == []
