import asyncio
import socket

import grpc
import numpy as np
import pytest

import client
from client import stream as stream_module
from protos.monocoque.v1 import stream_pb2 as s
from tests.client.scripted import Context, Script, StreamHandler, answer, credit, listen, serving, well_behaved
from tests.server.relays import stalling

GRAY = client.Camera("front", width=8, height=4, encoding="gray8")
OTHER = client.Camera("rear", width=8, height=4, encoding="gray8")
PIXELS = np.arange(32, dtype=np.uint8).reshape(4, 8)


async def test_a_frame_comes_back_with_its_result_and_the_frame_itself() -> None:
    script = Script(well_behaved)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        frame = client.Frame("front", PIXELS, context="mine")
        assert stream.submit(frame) == 0
        result = await anext(stream)
    assert result.ok
    assert result.frame is frame
    assert [d.label for d in result.detections] == ["car"]
    assert result.detections[0].distance_m == 14.5
    assert result.boxes().tolist() == [[10, 12, 30, 28]]
    assert script.pixels == [PIXELS.tobytes()]
    assert stream.opened.labels == ("car", "truck")


async def test_the_stages_add_up_to_the_clients_own_end_to_end_time() -> None:
    script = Script(well_behaved)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        assert stream.opened.same_clock
        stream.submit(client.Frame("front", PIXELS))
        result = await anext(stream)
    ledger = result.ledger
    assert ledger.end_to_end_ns == sum(ledger.stages().values())
    assert all(value >= 0 for value in ledger.stages().values())
    assert ledger.held_ns is not None and ledger.end_to_end_ns is not None
    assert result.age.returned_ns == ledger.held_ns + ledger.end_to_end_ns


@pytest.mark.parametrize("clock_offset_ns", [-(10**15), 10**15])
async def test_a_foreign_clock_is_estimated_and_the_stages_still_add_up(clock_offset_ns: int) -> None:
    script = Script(well_behaved, clock_offset_ns=clock_offset_ns)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        assert not stream.opened.same_clock
        while stream.clock_offset is None:
            await asyncio.sleep(0.01)
        offset = stream.clock_offset
        stream.submit(client.Frame("front", PIXELS))
        ledger = (await anext(stream)).ledger
    assert abs(offset.offset_ns - clock_offset_ns) <= offset.uncertainty_ns
    assert ledger.end_to_end_ns == sum(ledger.stages().values())
    assert ledger.uncertainty_ns > 0
    assert ledger.transport_ns is not None and ledger.transport_ns >= -ledger.uncertainty_ns


async def test_without_credit_only_the_newest_frame_is_kept_and_the_server_is_told() -> None:
    allowed = asyncio.Event()

    async def stingy(script: Script, context: Context) -> None:
        await script.open(context)
        await allowed.wait()
        await context.write(credit("front"))
        async for request, _, received in script.requests(context):
            await context.write(answer(request, received, received))

    script = Script(stingy, credits=0)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        for shade in range(10):
            stream.submit(client.Frame("front", np.full((4, 8), shade, np.uint8)))
        await asyncio.sleep(0)
        assert script.frames == []
        allowed.set()
        result = await anext(stream)
        counts = stream.counts["front"]
    assert result.sequence == 9
    assert script.frames == [("front", 9, 9)]
    assert script.pixels == [bytes([9]) * 32]
    assert (counts.submitted, counts.client_dropped, counts.sent, counts.answered) == (10, 9, 1, 1)


async def test_a_camera_without_credit_does_not_hold_up_the_others() -> None:
    async def one_sided(script: Script, context: Context) -> None:
        await script.open(context)
        async for request, _, received in script.requests(context):
            if request.frame.camera_id == "front":
                await context.write(credit("front"))
            await context.write(answer(request, received, received))

    script = Script(one_sided, credits=1)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY, OTHER]) as stream:
        for _ in range(5):
            stream.submit(client.Frame("rear", PIXELS))
            stream.submit(client.Frame("front", PIXELS))
            while (await anext(stream)).camera_id != "front":
                pass
        assert stream.counts["front"].answered == 5
        assert stream.counts["rear"].sent == 1


async def test_a_replay_sends_every_frame_in_order_however_slow_the_server() -> None:
    async def slow(script: Script, context: Context) -> None:
        await script.open(context)
        async for request, _, received in script.requests(context):
            await asyncio.sleep(0.002)
            await context.write(answer(request, received, received))
            await context.write(credit(request.frame.camera_id))

    script = Script(slow, credits=1)
    async with (
        serving(script) as address,
        client.connect(address) as server,
        server.stream([GRAY, OTHER], policy="replay") as stream,
    ):
        for _ in range(20):
            await stream.send(client.Frame("front", PIXELS))
            await stream.send(client.Frame("rear", PIXELS))
        await stream.finish()
        results = [result async for result in stream]
        assert stream.undelivered == 0
    assert len(results) == 40
    for camera in ("front", "rear"):
        assert [number for name, number, _ in script.frames if name == camera] == list(range(20))


async def test_finishing_a_live_stream_waits_for_answers_but_not_for_unsent_frames() -> None:
    async def last_word(script: Script, context: Context) -> None:
        await script.open(context)
        kept = [(request, received) async for request, _, received in script.requests(context)]
        for request, received in kept:
            await context.write(answer(request, received, received))

    script = Script(last_word, credits=1)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        stream.submit(client.Frame("front", PIXELS))
        while not script.frames:
            await asyncio.sleep(0.001)
        stream.submit(client.Frame("front", PIXELS))
        await stream.finish()
        assert [result.sequence async for result in stream] == [0]
        assert stream.counts["front"].client_dropped == 1
        with pytest.raises(client.StreamClosed):
            stream.submit(client.Frame("front", PIXELS))


async def test_submit_in_a_replay_is_refused_because_it_may_drop() -> None:
    async with (
        serving(Script(well_behaved)) as address,
        client.connect(address) as server,
        server.stream([GRAY], policy="replay") as stream,
    ):
        with pytest.raises(client.StreamClosed, match="use send"):
            stream.submit(client.Frame("front", PIXELS))


# -- faults ----------------------------------------------------------------------------------------------------------


async def test_nobody_listening_says_how_to_start_a_server() -> None:
    with pytest.raises(client.ServerUnreachable, match="python -m server BUNDLE"):
        async with client.connect("127.0.0.1:1"):
            pass


async def test_waiting_for_a_server_that_is_starting() -> None:
    script = Script(well_behaved)
    with socket.socket() as reserved:  # it does not listen, and keeps others from the port
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"

        async def connect() -> str:
            async with client.connect(address, wait_seconds=30) as server:
                return (await server.engine()).name

        connecting = asyncio.create_task(connect())
        await asyncio.sleep(0.05)
        server, _ = await listen(script, address)
        assert await connecting == "scripted"
        await server.stop(None)


async def test_another_grpc_service_is_named_for_what_it_is() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(client.ProtocolViolation, match="does not offer"):
        async with client.connect(f"127.0.0.1:{port}"):
            pass
    await server.stop(None)


async def test_a_server_that_dies_ends_the_iteration_with_what_is_lost() -> None:
    died = asyncio.Event()

    async def mortal(script: Script, context: Context) -> None:
        await script.open(context)
        async for request, _, received in script.requests(context):
            if request.frame.sequence == 0:
                await context.write(answer(request, received, received))
            else:
                died.set()
                await asyncio.Event().wait()

    script = Script(mortal)
    async with serving(script) as address:
        connection = client.connect(address)
        server = await connection.__aenter__()
        stream = await server.stream([GRAY]).__aenter__()
        await stream.send(client.Frame("front", PIXELS))
        await stream.send(client.Frame("front", PIXELS))
        await died.wait()
    assert (await anext(stream)).sequence == 0
    with pytest.raises(client.ConnectionLost) as lost:
        await anext(stream)
    assert lost.value.undelivered == 1
    with pytest.raises(client.ConnectionLost):
        stream.submit(client.Frame("front", PIXELS))
    await stream.close()
    await connection.__aexit__(None, None, None)


async def refusing(script: Script, context: Context) -> None:
    await context.read()
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "camera front: 8x4 is too small")


async def silent_end(script: Script, context: Context) -> None:
    await context.read()


async def wrong_first(script: Script, context: Context) -> None:
    await context.read()
    await context.write(credit("front"))


async def noise(script: Script, context: Context) -> None:
    await context.read()
    await context.write(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("handler", "error", "message"),
    [
        (refusing, client.Rejected, "INVALID_ARGUMENT: camera front: 8x4 is too small"),
        (silent_end, client.ProtocolViolation, "ended the stream instead of opening it"),
        (wrong_first, client.ProtocolViolation, "answered Open with credit"),
        (noise, client.ProtocolViolation, "no StreamFramesResponse"),
    ],
)
async def test_a_stream_that_does_not_open_says_why(
    handler: StreamHandler, error: type[client.ClientError], message: str
) -> None:
    async with serving(Script(handler)) as address, client.connect(address) as server:
        with pytest.raises(error, match=message):
            async with server.stream([GRAY]):
                pass


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"\xff\xff\xff", "no StreamFramesResponse"),
        (b"", "an empty message"),
        (credit("left"), "credit for camera 'left'"),
        (answer(s.StreamFramesRequest(), 0, 1), "not in flight"),
    ],
)
async def test_garbage_on_an_open_stream_ends_it_with_an_explanation(message: bytes, expected: str) -> None:
    async def broken(script: Script, context: Context) -> None:
        await script.open(context)
        await context.write(message)
        await asyncio.Event().wait()

    async with (
        serving(Script(broken)) as address,
        client.connect(address) as server,
        server.stream([GRAY]) as stream,
    ):
        with pytest.raises(client.ProtocolViolation, match=expected):
            await anext(stream)


async def test_send_gives_up_on_a_server_that_never_grants_credit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "STALL_SECONDS", 0.05)

    async def miser(script: Script, context: Context) -> None:
        await script.open(context)
        await asyncio.Event().wait()

    async with (
        serving(Script(miser, credits=0)) as address,
        client.connect(address) as server,
        server.stream([GRAY], policy="replay") as stream,
    ):
        with pytest.raises(client.StreamStalled, match="no credit for camera front"):
            await stream.send(client.Frame("front", PIXELS))


async def test_unread_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.inbox.MAX_UNREAD", 3)
    async with serving(Script(well_behaved)) as address, client.connect(address) as server:
        async with server.stream([GRAY]) as live:
            for _ in range(6):
                await live.send(client.Frame("front", PIXELS))
            await live.finish()
            while not live._exchange.ended:
                await asyncio.sleep(0.001)
            assert [result.sequence async for result in live] == [3, 4, 5]
            assert live.unread_dropped == 3
        async with server.stream([GRAY], policy="replay") as replay:
            with pytest.raises(client.StreamStalled, match="read them while you send"):
                for _ in range(100):
                    await replay.send(client.Frame("front", PIXELS))


async def test_limits_are_checked_before_a_frame_is_sent() -> None:
    async with serving(Script(well_behaved, max_width=4)) as address, client.connect(address) as server:
        with pytest.raises(client.FrameInvalid, match="--max-frame 8x4"):
            async with server.stream([GRAY]):
                pass
    async with (
        serving(Script(well_behaved, max_frame_bytes=31)) as address,
        client.connect(address) as server,
        server.stream([GRAY]) as stream,
    ):
        with pytest.raises(client.FrameInvalid, match="has 32 bytes, the server takes 31"):
            stream.submit(client.Frame("front", PIXELS))


async def test_watching_tells_the_camera_and_what_was_missed() -> None:
    script = Script(well_behaved)
    script.watch_again(GRAY.to_proto(), 1, missed=4)
    async with serving(script) as address, client.connect(address) as server:
        seen = [watched async for watched in server.watch()]
    assert [(w.stream_id, w.camera, w.missed) for w in seen] == [("s1", GRAY, 4)]
    assert seen[0].result.ledger.end_to_end_ns is None


async def test_a_server_clock_that_steps_is_counted_and_the_offset_found_anew() -> None:
    script = Script(well_behaved, clock_offset_ns=10**12)
    async with serving(script) as address, client.connect(address) as server, server.stream([GRAY]) as stream:
        while stream.clock_offset is None:
            await stream._exchange.changed.wait()
        assert stream.clock_steps == 0
        script.clock_offset_ns += 3600 * 10**9
        while stream.clock_steps == 0:
            await stream._exchange.changed.wait()
        offset = stream.clock_offset
        assert offset is not None
        assert abs(offset.offset_ns - script.clock_offset_ns) <= offset.uncertainty_ns
        assert stream.clock_steps == 1


async def test_a_server_behind_a_pulled_cable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.rpc.KEEPALIVE_MS", 1000)  # also what a busy machine has for an answer
    script = Script(well_behaved)
    async with (
        serving(script) as direct,
        stalling(direct) as (address, pulled),
        client.connect(address) as server,
        server.stream([GRAY]) as stream,
    ):
        stream.submit(client.Frame("front", PIXELS))
        assert (await anext(stream)).ok
        pulled.set()
        with pytest.raises(client.ConnectionLost, match="lost the server"):
            await anext(stream)
