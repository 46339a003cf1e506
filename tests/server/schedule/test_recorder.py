"""What a live server's scheduler did is what the state machine does with the same events at the same times."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from protos.monocoque.v1 import stream_pb2
from server.schedule.batching import LatencyCurve
from server.schedule.scheduler import Scheduler
from tests.server.conftest import serving
from tests.server.raw_client import camera, frame
from tests.server.schedule.test_scheduler import Item

MS = 1_000_000


class Replay:
    """Plays a record, and compares each decision."""

    def __init__(self) -> None:
        self.scheduler: Scheduler[str, Item] = Scheduler()
        self.numbers: dict[int, int] = {}
        self.events: Counter[str] = Counter()

    def play(self, event: str, **values: Any) -> None:
        self.events[event] += 1
        getattr(self, f"_{event}")(**values)

    def _add_camera(self, key: str, options: dict[str, Any]) -> None:
        self.scheduler.add_camera(key, **options)

    def _add_set(self, key: str, cameras: list[str], options: dict[str, Any]) -> None:
        self.scheduler.add_set(key, cameras, **options)

    def _remove_camera(self, key: str, gone: list[int]) -> None:
        assert self._numbers(self.scheduler.remove_camera(key)) == gone

    def _offer(
        self, key: str, item: int, deadline_ns: int | None, taken_ns: int, now_ns: int, replaced: list[int]
    ) -> None:
        assert self._numbers(self.scheduler.offer(key, Item(key, item, deadline_ns, taken_ns), now_ns)) == replaced

    def _end_set(self, key: str, now_ns: int, replaced: list[int]) -> None:
        assert self._numbers(self.scheduler.end_set(key, now_ns)) == replaced

    def _take(
        self, now_ns: int, max_batch: int, curve: dict[str, int] | None, worker: int, **decided: list[Any]
    ) -> None:
        measured = None if curve is None else LatencyCurve({int(size): ns for size, ns in curve.items()})
        selection = self.scheduler.take(now_ns, max_batch, measured, worker)
        assert {
            "batch": self._numbers(selection.batch),
            "late": self._numbers(selection.late),
            "stale": self._numbers(selection.stale),
            "keys": selection.keys,
        } == decided

    def _finish(self, keys: list[str], now_ns: int) -> None:
        self.scheduler.finish(keys, now_ns)

    @staticmethod
    def _numbers(items: list[Item]) -> list[int]:
        return [item.number for item in items]


@pytest.mark.parametrize("max_batch", [1, 4])
async def test_a_live_trace_replays_to_the_same_decisions(bundle_path: Path, tmp_path: Path, max_batch: int) -> None:
    record = tmp_path / "quarters-1.0.jsonl"
    async with serving(bundle_path, max_batch=max_batch, record_scheduler=tmp_path, instances=2) as running:
        live, replay, sets = (running.stream() for _ in range(3))
        await live.open([camera("a", priority=1), camera("b", weight=3)], max_age_ns=3 * MS)
        await replay.open([camera("c"), camera("d")], policy=stream_pb2.POLICY_REPLAY)
        names = ("e", "f", "g")
        await sets.open([camera(name) for name in names], sets=stream_pb2.Sets(tolerance_ns=2 * MS))
        for turn in range(1, 31):
            for stream, cameras in ((live, "ab"), (replay, "cd"), (sets, "efg" if turn % 3 else "ef")):
                for name in cameras:
                    await stream.send(frame(turn, name, capture_time_ns=turn * 33 * MS))
        for stream in (live, replay, sets):
            await stream.finish()
    replayed = Replay()
    for line in record.read_text().splitlines():
        replayed.play(**json.loads(line))
    assert replayed.scheduler.is_empty
    assert replayed.events["offer"] == 30 * 7 - 10
    assert set(replayed.events) == {
        "add_camera",
        "add_set",
        "offer",
        "end_set",
        "take",
        "finish",
        "remove_camera",
    }
