"""A batch is prepared while another one is computed: what that may and may not change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from protos.monocoque.v1.result_pb2 import STATUS_LATE, STATUS_OK
from server.engines.mailbox import Mailbox
from server.schedule.scheduler import Scheduler
from server.stream.clock import HostClock
from tests.server.conftest import Engine, FakeTime, Running, serving
from tests.server.raw_client import RawStream, camera, frame

NAMES = ("a", "b", "c")


async def held_with_one_prepared(running: Running, engine: Engine, **of_the_last: int) -> RawStream:
    """Frame 1 of `a` is answered, that of `b` is being computed and that of `c` has left its slot."""
    engine.hold = True
    stream = running.stream()
    await stream.open([camera(name) for name in NAMES])
    await stream.send(frame(1, "a"))
    await engine.entered()
    await stream.send(frame(1, "b"))
    await stream.send(frame(1, "c", **of_the_last))
    session = next(iter(running.server.core.sessions))
    await running.until(lambda: session.unanswered == 3)  # that of `b` waits or, on a slow machine, is prepared already
    engine.release()
    await engine.entered()
    await running.until(lambda: not any(running.server.mailbox.depths().values()))
    assert len(engine.batches) == 2
    return stream


async def test_the_next_frame_leaves_its_slot_while_the_engine_computes(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, overlap="on") as running:
        stream = await held_with_one_prepared(running, engine)
        await stream.send(frame(2, "c"))  # waits: what was prepared is not replaced
        await running.until(lambda: sum(running.server.mailbox.depths().values()) == 1)
        engine.free()
        results = await stream.results(4)
        assert [(one.camera_id, one.sequence) for one in results] == [("a", 1), ("b", 1), ("c", 1), ("c", 2)]
        assert {one.status for one in results} == {STATUS_OK}
        prepared = results[2].ledger
        assert prepared.launch_ns > 0
        stages = [prepared.queue_ns, prepared.decode_ns, prepared.batch_ns, prepared.preprocess_ns, prepared.launch_ns]
        assert sum([*stages, prepared.inference_ns, prepared.postprocess_ns, prepared.answer_ns]) == prepared.total_ns


class Ticking(FakeTime):
    """A clock on which everything takes a little while."""

    def host(self) -> HostClock:
        return replace(super().host(), monotonic_ns=self.tick)

    def tick(self) -> int:
        self.now_ns += 400_000
        return self.now_ns


async def test_a_prepared_frame_that_grows_too_old_is_not_launched(bundle_path: Path, engine: Engine) -> None:
    time = Ticking()
    async with serving(bundle_path, engine.open, time.host(), overlap="on") as running:
        stream = await held_with_one_prepared(running, engine, max_age_ns=10**12)
        time.now_ns += 2 * 10**12
        engine.free()
        results = {one.camera_id: one for one in await stream.results(3)}
        assert results["b"].status == STATUS_OK
        assert results["c"].status == STATUS_LATE
        assert results["c"].reason == "past its maximum age before the engine was launched"
        assert len(engine.batches) == 2


async def test_a_prepared_frame_is_answered_before_the_server_stops(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, overlap="on") as running:
        stream = await held_with_one_prepared(running, engine)
        engine.free()
        results = await stream.finish()
        assert [(one.camera_id, one.status) for one in results] == [(name, STATUS_OK) for name in NAMES]


async def test_a_failure_while_preparing_costs_its_frame_only(bundle_path: Path, engine: Engine) -> None:
    async with serving(bundle_path, engine.open, overlap="on") as running:
        stream = await held_with_one_prepared(running, engine)
        engine.fail = "no luck"
        engine.release()
        await engine.entered()
        engine.fail = ""
        engine.free()
        await stream.results(3)
        await running.still_serves()


def test_a_closed_mailbox_ends_both_threads() -> None:
    mailbox = Mailbox(Scheduler(), lambda: 0)
    mailbox.close()
    assert mailbox.take(1) is None
