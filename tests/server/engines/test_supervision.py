"""An engine's process dies, whenever it likes: every frame has its answer, and another process takes its place."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest

from engine.bundle import Bundle
from engine.process import WorkerRuntime
from engine.slots import RegionTable
from protos.inference import service_pb2 as oip
from protos.monocoque.v1 import state_pb2, stream_pb2
from protos.monocoque.v1.result_pb2 import STATUS_FAILED, STATUS_OK, STATUS_STALE
from server.app import LIVENESS
from server.engines import supervision
from server.engines.supervision import LONGEST_DELAY_SECONDS, MOST_FAILURES, STEADY_SECONDS, Backoff
from tests.server.bundles import HEIGHT, WIDTH, write_bundle
from tests.server.conftest import serving
from tests.server.engines.conftest import QUICK_FAILURES
from tests.server.engines.dying import Gate, kill, only_worker, restarted, restarts, workers
from tests.server.observe.test_metrics import samples
from tests.server.raw_client import RawState, RawStream, camera, frame
from tests.server.test_drain import health

pytestmark = pytest.mark.usefixtures("nothing_left")


async def test_a_kill_amid_a_stream_costs_its_frames_and_no_answer(bundle: Path) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = running.stream()
        opened = await stream.open([camera()])
        stop = asyncio.Event()

        async def flow() -> int:
            sent = 0
            while not stop.is_set():
                sent += 1
                await stream.send(frame(sent))
                await asyncio.sleep(0.002)
            return sent

        flowing = asyncio.ensure_future(flow())
        await running.until(lambda: running.frames("ok") > 20)
        pid = only_worker()
        kill(pid)
        await restarted(running, pid)
        ok = running.frames("ok")
        await running.until(lambda: running.frames("ok") > ok + 20)
        stop.set()
        sent = await flowing
        results = await stream.finish()
        assert sorted(result.sequence for result in results) == list(range(1, sent + 1))
        statuses = Counter(result.status for result in results)
        assert set(statuses) <= {STATUS_OK, STATUS_STALE, STATUS_FAILED}
        assert statuses[STATUS_FAILED] > 0
        cause = f"the engine's process {pid} ended (signal SIGKILL)"
        assert {result.reason for result in results if result.status == STATUS_FAILED} == {cause}
        computed = [result for result in results if result.status == STATUS_OK]
        assert {result.engine_digest for result in computed} == {opened.engine_digest}
        assert [result.sequence for result in computed] == sorted(result.sequence for result in computed)
        assert await restarts(running) == 1


async def test_the_frame_under_way_is_answered_with_the_cause_once(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        pid = only_worker()
        os.kill(pid, signal.SIGSTOP)
        await stream.send(frame(1))
        await running.until(lambda: not any(running.server.mailbox.depths().values()))
        kill(pid)
        (failed,) = await stream.results(1)
        assert (failed.status, failed.sequence) == (STATUS_FAILED, 1)
        assert failed.reason == f"the engine's process {pid} ended (signal SIGKILL)"
        await restarted(running, pid)
        await stream.send(frame(2))
        (result,) = await stream.finish()
        assert (result.status, result.sequence) == (STATUS_OK, 2)


async def test_a_replay_waits_for_the_next_process(bundle: Path) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = running.stream()
        opened = await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
        pid = only_worker()
        os.kill(pid, signal.SIGSTOP)
        depth = opened.credits
        for number in range(depth + 1):
            await stream.send(frame(number))
        (session,) = running.server.core.sessions
        await running.until(lambda: session.unanswered == depth + 1)
        kill(pid)
        lane = running.server.catalogue.find()
        await running.until(lambda: lane.instances == (0, 1))
        held = await stream.results(depth + 1)  # what the engine had fails; what waited may be computed by the next one
        assert sorted(result.sequence for result in held) == list(range(depth + 1))
        assert STATUS_FAILED in {result.status for result in held} <= {STATUS_FAILED, STATUS_OK}
        for number in range(depth + 1, 100):
            await stream.send(frame(number))
        results = await stream.finish()
        assert [result.sequence for result in results] == list(range(depth + 1, 100))
        assert {result.status for result in results} == {STATUS_OK}


async def test_a_replay_that_goes_on_loses_no_more_than_what_waited(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = running.stream()
        opened = await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)

        async def flow() -> None:
            for number in range(300):
                await stream.send(frame(number))
                await asyncio.sleep(0.001)

        instances = running.server.catalogue.find()._instances
        assert instances is not None
        watch = instances._all[0].watch
        assert watch is not None and watch._fd is not None
        asyncio.get_running_loop().remove_reader(watch._fd)  # the kernel may tell of the end after the first failure
        flowing = asyncio.ensure_future(flow())
        await running.until(lambda: running.frames("ok") > 20)
        kill(only_worker())
        results = await stream.results(300)
        await flowing
        assert sorted(result.sequence for result in results) == list(range(300))
        lost = sum(result.status == STATUS_FAILED for result in results)
        assert 0 < lost <= opened.credits + 3  # those in the engine, prepared, in the queue and before it


async def test_a_replay_does_not_wait_for_an_engine_that_was_given_up(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = running.stream()
        await stream.open([camera()], policy=stream_pb2.POLICY_REPLAY)
        bundle.rename(bundle.with_name("away"))
        kill(only_worker())
        await running.until(lambda: running.server.mailbox.held)
        for number in range(20):
            await stream.send(frame(number))
        results = await stream.finish()
        assert [result.status for result in results] == [STATUS_FAILED] * 20


async def test_a_kill_while_nobody_sends_is_seen_and_mended(bundle: Path) -> None:
    async with serving(bundle, engine_process=True) as running:
        watch = RawState(running.channel)
        await watch.until(state_pb2.SERVER_STATE_SERVING)
        pid = only_worker()
        kill(pid)
        told = await watch.until(state_pb2.SERVER_STATE_SERVING)
        assert told[0].state == state_pb2.SERVER_STATE_STARTING
        assert told[0].reason == f"quarters 1.0: the engine's process {pid} ended (signal SIGKILL)"
        assert told[0].engines[0].state == state_pb2.ENGINE_STATE_LOADING
        assert only_worker() != pid
        await running.still_serves()


async def test_a_kill_after_a_kill(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        seen = []
        for number in (1, 2, 3):
            await stream.send(frame(number))
            seen += await stream.results(1)
            pid = only_worker()
            kill(pid)
            await restarted(running, pid)
        assert [result.status for result in seen] == [STATUS_OK] * 3
        assert await restarts(running) == 3
        await running.still_serves()


async def test_a_process_that_hangs_is_killed_and_replaced(bundle: Path, quick: None) -> None:
    def open_impatient(opened: Bundle, regions: RegionTable) -> WorkerRuntime:
        return WorkerRuntime(opened, "cpu", regions, threads=1, run_timeout_s=2.0)

    async with serving(bundle, open_impatient) as running:
        stream = await running.open_one("front")
        pid = only_worker()
        os.kill(pid, signal.SIGSTOP)
        await stream.send(frame(1))
        (failed,) = await stream.results(1)
        assert failed.status == STATUS_FAILED
        assert failed.reason == f"the engine's process {pid} did not answer within 2 s and was killed (signal SIGKILL)"
        await restarted(running, pid)
        await running.still_serves()


async def test_what_cannot_be_opened_again_is_given_up_until_somebody_acts(
    bundle: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engines.thread.SAMPLE_INTERVAL_NS", 0)  # its memory is asked for in each turn
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        away = bundle.rename(bundle.with_name("away"))
        watch = RawState(running.channel)
        kill(only_worker())
        failed = (await watch.until(state_pb2.SERVER_STATE_FAILED))[-1]
        assert "quarters 1.0: it could not be opened again: no bundle at" in failed.reason
        assert failed.engines[0].state == state_pb2.ENGINE_STATE_UNAVAILABLE
        assert failed.engines[0].restarts == QUICK_FAILURES - 1
        assert [await health(running, name) for name in ("", LIVENESS)] == ["NOT_SERVING"] * 2
        assert "monocoque_serving 0" in await running.metrics()
        for number in (1, 2, 3):  # streams that are open stay so, and say what is wrong
            await stream.send(frame(number))
            (result,) = await stream.results(1)
            assert (result.status, result.sequence) == (STATUS_FAILED, number)
        refused = running.stream()
        await refused.send(
            stream_pb2.StreamFramesRequest(open=stream_pb2.Open(cameras=[camera("b")])).SerializeToString()
        )
        assert await refused.receive() is None
        code, details = await refused.status()
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "quarters 1.0 is UNAVAILABLE: it could not be opened again" in details
        away.rename(bundle)
        await running.server.reload()  # SIGHUP
        await watch.until(state_pb2.SERVER_STATE_SERVING)
        assert await health(running, "") == "SERVING"
        await stream.send(frame(4))
        assert (await stream.results(1))[0].status == STATUS_OK


async def test_an_engine_that_was_given_up_is_loaded_again_under_its_streams(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        stream = await running.open_one("front")
        away = bundle.rename(bundle.with_name("away"))
        kill(only_worker())
        await RawState(running.channel).until(state_pb2.SERVER_STATE_FAILED)
        away.rename(bundle)
        load = running.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")  # type: ignore[call-arg]
        await load(oip.RepositoryModelLoadRequest(model_name="quarters").SerializeToString())
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == STATUS_OK


async def test_a_bundle_that_comes_back_is_served_again_and_another_one_is_not(bundle: Path, quick: None) -> None:
    async with serving(bundle, engine_process=True) as running:
        away = bundle.rename(bundle.with_name("away"))
        write_bundle(bundle, version="2.0")
        lane = running.server.catalogue.find()
        pid = only_worker()
        kill(pid)
        await running.until(lambda: "it was opened with" in lane.reason)
        bundle.rename(bundle.with_name("other"))
        away.rename(bundle)
        await restarted(running, pid)
        await running.still_serves()


async def test_of_several_instances_the_dead_one_is_replaced_and_the_others_serve(
    bundle: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    gate.open()
    async with serving(bundle, engine_process=True, instances=2) as running:
        stream = await running.open_one("front")
        watch = RawState(running.channel)
        await watch.until(state_pb2.SERVER_STATE_SERVING)
        first, second = workers()
        gate.close()
        kill(first)
        (degraded,) = await watch.until(state_pb2.SERVER_STATE_DEGRADED)
        assert degraded.reason == f"quarters 1.0: 1 of 2 instances: the engine's process {first} ended (signal SIGKILL)"
        assert (degraded.engines[0].instances_ready, degraded.engines[0].instances) == (1, 2)
        assert [await health(running, name) for name in ("", LIVENESS)] == ["SERVING"] * 2
        page = await running.metrics()
        assert samples(page, "monocoque_engine_instances") == {("quarters", "1.0"): 1}
        for number in range(20):  # none of them goes to the dead one
            await stream.send(frame(number))
            assert (await stream.results(1))[0].status == STATUS_OK
        gate.open()
        await watch.until(state_pb2.SERVER_STATE_SERVING)
        assert second in workers()
        assert len(workers()) == 2
        gate.close()
        for pid in workers():
            kill(pid)
        await watch.until(state_pb2.SERVER_STATE_STARTING)
        await stream.send(frame(20))
        assert (await stream.results(1))[0].status == STATUS_FAILED
        gate.open()
        await watch.until(state_pb2.SERVER_STATE_SERVING)


async def test_one_of_two_engines_does_not_stop_the_other(tmp_path: Path, quick: None) -> None:
    front, rear = (write_bundle(tmp_path / name, name=name) for name in ("front", "rear"))
    async with serving((front, rear), engine_process=True) as running:  # type: ignore[arg-type]
        front.rename(front.with_name("away"))
        process = running.server.catalogue.find("front").engine.process
        assert process is not None
        kill(process.pid)
        watch = RawState(running.channel)
        while "could not be opened" not in (told := await watch.until(state_pb2.SERVER_STATE_DEGRADED))[-1].reason:
            pass
        assert told[-1].reason.startswith("front 1.0: ")
        assert [engine.reason for engine in told[-1].engines][1] == ""
        rear_stream = running.stream()
        await rear_stream.open([camera()], engine="rear")
        await rear_stream.send(frame(1))
        assert (await rear_stream.results(1))[0].status == STATUS_OK
        assert await health(running, "") == "SERVING"


async def test_requests_under_way_fail_and_new_ones_are_told_to_wait(
    bundle: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    gate.open()
    images = np.full((1, HEIGHT, WIDTH, 3), 200, np.uint8)
    tensor = oip.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=images.shape)
    request = oip.ModelInferRequest(model_name="quarters", inputs=[tensor], raw_input_contents=[images.tobytes()])
    async with serving(bundle, engine_process=True) as running:

        async def infer() -> str:
            call = running.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")  # type: ignore[call-arg]
            try:
                await call(request.SerializeToString())
            except grpc.aio.AioRpcError as error:
                return f"{error.code().name}: {error.details()}"
            return "OK"

        assert await infer() == "OK"
        lane = running.server.catalogue.find()
        pid = only_worker()
        os.kill(pid, signal.SIGSTOP)
        under_way = asyncio.ensure_future(infer())
        calls = running.server.open_inference
        await running.until(lambda: not calls.idle and not any(lane.mailbox.depths().values()))
        gate.close()
        kill(pid)
        cause = f"the engine's process {pid} ended (signal SIGKILL)"
        assert (await under_way).startswith(f"INTERNAL: {cause}")
        await running.until(lambda: lane.instances == (0, 1))  # its end is seen beside, and maybe later
        assert (await infer()).startswith(f"UNAVAILABLE: quarters 1.0 is LOADING: {cause}")
        gate.open()
        await restarted(running, pid)
        assert await infer() == "OK"


async def test_unloading_ends_the_waiting(bundle: Path) -> None:
    async with serving(bundle, engine_process=True) as running:
        bundle.rename(bundle.with_name("away"))
        lane = running.server.catalogue.find()
        kill(only_worker())
        await running.until(lambda: lane.instances == (0, 1))
        await running.server.catalogue.unload("quarters")
        assert workers() == []
        assert not [task for task in asyncio.all_tasks() if "_open_again" in repr(task)]


async def test_a_server_that_stops_does_not_wait_for_the_next_try(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FIRST_DELAY_SECONDS", 1000)
    async with serving(bundle, engine_process=True) as running:
        stream: RawStream = await running.open_one("front")
        kill(only_worker())
        lane = running.server.catalogue.find()
        await running.until(lambda: lane.instances == (0, 1))
        await stream.send(frame(1))
        assert (await stream.results(1))[0].status == STATUS_FAILED
        watch = RawState(running.channel)
        await running.server.stop()
        assert (await watch.until(state_pb2.SERVER_STATE_DRAINING))[-1].reason == "it is shutting down"
        assert await watch.next() is None
        assert await watch.call.code() is grpc.StatusCode.OK


def test_the_delays_double_up_to_a_limit_and_end() -> None:
    backoff = Backoff()
    delays = [backoff.failed(0) for _ in range(MOST_FAILURES)]
    assert delays == [0.5, 1, 2, 4, 8, 16, LONGEST_DELAY_SECONDS, None]


def test_an_engine_that_served_for_a_while_has_recovered() -> None:
    backoff = Backoff()
    for _ in range(MOST_FAILURES - 1):
        assert backoff.failed(STEADY_SECONDS / 2) is not None
    assert backoff.failed(STEADY_SECONDS) == 0.5
    assert backoff.failed(STEADY_SECONDS / 2) == 1
