"""Any sequence of frames, turns of the engine and endings: each frame is answered or counted exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.monocoque.v1 import result_pb2, stream_pb2
from server.engines.mailbox import Mailbox
from server.host.process_memory import ProcessMemory
from server.observe.metrics import STATUSES, Metrics
from server.schedule.scheduler import Scheduler
from server.stream import session
from server.stream.answers import AnswerWriter, EngineFacts
from server.stream.session import Session
from server.stream.watch import Audience
from tests.server.conftest import Engine, FakeTime, Running
from tests.server.raw_client import camera, frame

CAMERAS = ("a", "b", "c")


class World:
    """A session with a mailbox, and an engine that a test turns by hand."""

    def __init__(self, policy: Any) -> None:
        self.time = FakeTime()
        host = self.time.host()
        self.metrics = Metrics(8)
        self.mailbox = Mailbox(Scheduler(), host.monotonic_ns)
        self.writer = AnswerWriter(EngineFacts("0" * 64), ProcessMemory(host.monotonic_ns))
        request = stream_pb2.Open(cameras=[camera(name) for name in CAMERAS], policy=policy)
        self.session = Session(request, 10_000, host, self.mailbox, self.writer, Audience(self.metrics), self.metrics)
        self.sent: list[tuple[str, int]] = []
        self.computed: list[tuple[str, int]] = []
        self.waiting: asyncio.Task[None] | None = None

    async def send(self, camera_id: str, sequence: int, good: bool, max_age_ns: int) -> None:
        if self.waiting is not None and not self.waiting.done():
            return  # the client is held back
        message = frame(sequence, camera_id, data=None if good else b"short", max_age_ns=max_age_ns)
        self.sent.append((camera_id, sequence))
        self.waiting = asyncio.ensure_future(self.session.receive(message))
        await asyncio.sleep(0)

    async def turn(self) -> None:
        if not any(self.mailbox.depths().values()):
            return
        selection = self.mailbox.take(2)
        assert selection is not None
        for one in (*selection.late, *selection.batch):
            self.session.left_slot(one)
        for one in selection.late:
            self.session.deliver(self.writer.without_numbers(one, "late", ""))
        for one in selection.batch:
            self.computed.append((one.header.camera_id, one.header.sequence))
            self.session.deliver(self.writer.computed(one, None, (), "", len(selection.batch)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def answers(self) -> list[result_pb2.Result]:
        self.session.outbox.finish()
        found = []
        while (message := await self.session.outbox.next()) is not None:
            response = stream_pb2.StreamFramesResponse.FromString(message)
            if response.HasField("result"):
                found.append(response.result)
        return found

    def counted(self) -> Counter[str]:
        counts: Counter[str] = Counter()
        for name in (*CAMERAS, None):
            own = self.metrics.other_camera() if name is None else self.metrics.camera(name)
            for status in STATUSES:
                counts[status] += int(own.frames[status]._value.get())
        return counts


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"),
            st.sampled_from([*CAMERAS, "stranger"]),
            st.integers(-1, 2),
            st.booleans(),
            st.sampled_from([0, 5, 50]),
        ),
        st.tuples(st.just("turn")),
        st.tuples(st.just("wait"), st.integers(1, 40)),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(steps=steps, replay=st.booleans(), ending=st.sampled_from(["finished", "vanished", "drained"]))
def test_every_frame_is_accounted_for_exactly_once(steps: list[tuple[Any, ...]], replay: bool, ending: str) -> None:
    async def run() -> None:
        world = World(stream_pb2.POLICY_REPLAY if replay else stream_pb2.POLICY_LIVE)
        sequences = dict.fromkeys([*CAMERAS, "stranger"], 0)
        for step in steps:
            if step[0] == "send":
                _, camera_id, advance, good, max_age_ns = step
                sequences[camera_id] = max(0, sequences[camera_id] + advance)
                await world.send(camera_id, sequences[camera_id], good, max_age_ns)
            elif step[0] == "turn":
                await world.turn()
            else:
                world.time.now_ns += step[1]
        if ending == "finished":
            while world.session.unanswered:
                await world.turn()
        elif ending == "drained":
            world.session.refuse_waiting("enough")
        else:
            world.session.close()
        if world.waiting is not None:
            await world.waiting
        await asyncio.sleep(0)  # answers are counted once they are written
        assert world.session.unanswered == 0
        assert not any(world.mailbox.depths().values())
        answers = await world.answers()
        counted = world.counted()
        assert sum(counted.values()) == len(world.sent)
        assert counted["undelivered"] == len(world.sent) - len(answers)
        if ending != "vanished":
            assert Counter((answer.camera_id, answer.sequence) for answer in answers) == Counter(world.sent)
        for name in CAMERAS:
            order = [sequence for camera_id, sequence in world.computed if camera_id == name]
            assert order == sorted(set(order))

    asyncio.run(run())


def test_frames_after_the_end_of_the_drain_are_refused() -> None:
    async def run() -> None:
        world = World(stream_pb2.POLICY_LIVE)
        world.session.refuse_waiting("enough")
        await world.send("a", 1, True, 0)
        (answer,) = await world.answers()
        assert answer.status == result_pb2.STATUS_REFUSED
        assert answer.reason == "enough"

    asyncio.run(run())


def test_a_frame_of_a_stranger_brings_no_credit_and_no_label() -> None:
    async def run() -> None:
        world = World(stream_pb2.POLICY_LIVE)
        await world.send("stranger", 1, True, 0)
        (answer,) = await world.answers()
        assert answer.status == result_pb2.STATUS_REFUSED
        assert world.metrics.label("stranger") == "stranger"  # still free: nothing was counted under it
        assert "stranger" not in {labels[0] for labels in world.metrics.frames.series}

    asyncio.run(run())


@pytest.mark.parametrize("cause", ["body", "watchers"])
async def test_a_bug_in_one_answer_costs_no_frame_its_answer(
    cause: str, running: Running, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [await running.open_one(name) for name in ("front", "rear")]

    def broken(*arguments: Any) -> Any:
        monkeypatch.undo()
        raise ZeroDivisionError("a bug")

    if cause == "body":
        monkeypatch.setattr(session, "finish", broken)
    else:
        monkeypatch.setattr(running.server.core.audience, "publish", broken)
    engine.hold = True
    for stream, name in zip(streams, ("front", "rear"), strict=True):
        await stream.send(frame(1, name))
    await engine.entered()
    engine.free()
    (first,), (second,) = [await stream.results(1) for stream in streams]
    assert second.status == result_pb2.STATUS_OK
    if cause == "body":
        assert first.status == result_pb2.STATUS_FAILED
        assert first.reason == "the server failed to compute this frame: ZeroDivisionError: a bug"
        assert running.frames("failed") == 1
    else:  # it had its answer already
        assert first.status == result_pb2.STATUS_OK
        assert running.frames("ok") == 1
    await running.still_serves()
