from __future__ import annotations

import heapq
import itertools
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.schedule.batching import LatencyCurve, measure
from server.schedule.ranking import STARVING_ROUNDS
from server.schedule.scheduler import Scheduler, is_late
from server.schedule.sets import FrameSet


@dataclass(eq=False)
class Item:
    camera: str
    number: int
    deadline_ns: int | None = None
    taken_ns: int = 0
    frame_set: FrameSet | None = None


def percentile(values: list[int], share: float) -> int:
    return sorted(values)[int(len(values) * share / 100)]


def scheduler_of(*cameras: str, priority: int = 0) -> Scheduler[str, Item]:
    scheduler: Scheduler[str, Item] = Scheduler()
    for camera in cameras:
        scheduler.add_camera(camera, replaces=True, depth=1, priority=priority)
    return scheduler


def test_a_newer_frame_replaces_the_one_that_waits() -> None:
    scheduler = scheduler_of("a")
    old, new = Item("a", 1), Item("a", 2)
    assert scheduler.offer("a", old, 0) == []
    assert scheduler.offer("a", new, 0) == [old]
    assert scheduler.take(0, 1).batch == [new]
    assert scheduler.is_empty


def test_a_queue_keeps_its_order_and_its_bound() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("a", replaces=False, depth=2, priority=0)
    first, second = Item("a", 1), Item("a", 2)
    scheduler.offer("a", first, 0)
    scheduler.offer("a", second, 0)
    assert not scheduler.has_room("a")
    with pytest.raises(OverflowError, match="camera a has 2 frames waiting, its queue takes 2"):
        scheduler.offer("a", Item("a", 3), 0)
    assert scheduler.take(0, 4).batch == [first]  # one frame per camera and batch
    assert scheduler.has_room("a")
    assert scheduler.take(0, 4).batch == [second]


def test_the_camera_served_longest_ago_goes_first() -> None:
    scheduler = scheduler_of("a", "b", "c")
    order = []
    for _ in range(6):
        for camera in "abc":
            scheduler.offer(camera, Item(camera, 0), 0)
        order += [item.camera for item in scheduler.take(0, 1).batch]
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_late_frames_are_shed_and_make_room_for_the_next() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("a", replaces=False, depth=3, priority=0)
    items = [Item("a", 0, deadline_ns=10), Item("a", 1, deadline_ns=10), Item("a", 2, deadline_ns=100)]
    for item in items:
        scheduler.offer("a", item, 0)
    selection = scheduler.take(11, 1)
    assert selection.late == items[:2]
    assert selection.batch == items[2:]


def test_the_moment_of_the_deadline_is_not_late() -> None:
    assert not is_late(Item("a", 0, deadline_ns=10), 10)
    assert is_late(Item("a", 0, deadline_ns=10), 11)
    assert not is_late(Item("a", 0), 10**18)


@given(
    priorities=st.lists(st.integers(-2, 2), min_size=2, max_size=6),
    max_batch=st.integers(1, 3),
    turns=st.integers(20, 60),
)
def test_no_camera_starves_whatever_its_priority(priorities: list[int], max_batch: int, turns: int) -> None:
    scheduler: Scheduler[int, Item] = Scheduler()
    for camera, priority in enumerate(priorities):
        scheduler.add_camera(camera, replaces=True, depth=1, priority=priority)
    waited = dict.fromkeys(range(len(priorities)), 0)
    for turn in range(turns):
        for camera in waited:
            scheduler.offer(camera, Item(str(camera), turn), 0)
            waited[camera] += 1
        for item in scheduler.take(0, max_batch).batch:
            waited[int(item.camera)] = 0
        assert max(waited.values()) <= (STARVING_ROUNDS + 1) * len(priorities)


def test_priority_goes_first_while_nobody_starves() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("low", replaces=True, depth=1, priority=0)
    scheduler.add_camera("high", replaces=True, depth=1, priority=1)
    served = []
    starving = STARVING_ROUNDS * 2
    for turn in range(2 * (starving + 1)):
        for camera in ("low", "high"):
            scheduler.offer(camera, Item(camera, turn), 0)
        served += [item.camera for item in scheduler.take(0, 1).batch]
    assert served == (["high"] * starving + ["low"]) * 2


@pytest.mark.parametrize("replaces", [True, False])
def test_turns_are_shared_by_weight(replaces: bool) -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    for camera, weight in (("wide", 1), ("front", 3)):
        scheduler.add_camera(camera, replaces=replaces, depth=1, priority=0, weight=weight)
    served = []
    for turn in range(40):
        for camera in ("wide", "front"):
            if scheduler.has_room(camera):
                scheduler.offer(camera, Item(camera, turn), 10 * turn)
        served += [item.camera for item in scheduler.take(10 * turn, 1).batch]
    assert 29 <= served.count("front") <= 31


def test_a_camera_that_was_quiet_has_saved_up_one_turn() -> None:
    scheduler = scheduler_of("busy", "quiet")
    scheduler.offer("quiet", Item("quiet", 0), 0)
    assert scheduler.take(0, 1).batch
    served = []
    for turn in range(1, 111):
        for camera in ("busy", "quiet") if turn > 100 else ("busy",):
            scheduler.offer(camera, Item(camera, turn), turn)
        served += [item.camera for item in scheduler.take(turn, 1).batch]
    assert served[100] == "quiet"
    assert served[100:].count("busy") == 5


def test_a_fresh_frame_goes_before_one_that_has_waited() -> None:
    scheduler = scheduler_of("a", "b")
    for camera in ("a", "b"):
        scheduler.offer(camera, Item(camera, 0), 0)
        scheduler.take(0, 1)
    scheduler.offer("a", Item("a", 1), 10)
    scheduler.offer("b", Item("b", 1), 12)
    assert [item.camera for item in scheduler.take(14, 1).batch] == ["b"]


def test_of_a_camera_that_nothing_is_known_of_everything_is_news() -> None:
    scheduler = scheduler_of("known")
    scheduler.offer("known", Item("known", 0), 0)
    scheduler.take(0, 1)
    for camera in ("new", "newer"):
        scheduler.add_camera(camera, replaces=True, depth=1, priority=0)
        scheduler.offer(camera, Item(camera, 1), 100)
    scheduler.offer("known", Item("known", 1), 1000)
    assert [scheduler.take(1000, 1).batch[0].camera for _ in range(3)] == ["new", "newer", "known"]


def test_each_camera_of_a_set_counts_as_a_lone_one() -> None:
    scheduler = scheduler_of("lone")
    cameras = ("s1", "s2", "s3")
    scheduler.add_set("set", cameras, tolerance_ns=5, replaces=True, depth=1, priority=0)
    served: list[str] = []
    for turn in range(1, 401):
        for camera in ("lone", *cameras):
            scheduler.offer(camera, Item(camera, turn, taken_ns=100 * turn), 100 * turn)
        served += [item.camera for item in scheduler.take(100 * turn, 1).batch]
    assert served.count("lone") == pytest.approx(100, abs=5)


CAMERAS, ENGINE_NS = 6, 1000


@pytest.mark.parametrize("drift_ns", [0, 7, 31])
def test_under_overload_frames_are_younger_than_in_turns_and_nobody_is_left_out(drift_ns: int) -> None:
    """Six cameras at twice the engine's rate, shutters spread over the period, each a little slower than the last."""

    def ages(order: Callable[[int], int | None]) -> tuple[list[int], list[int]]:
        scheduler: Scheduler[int, Item] = Scheduler()
        for camera in range(CAMERAS):
            scheduler.add_camera(camera, replaces=True, depth=1, priority=0)
        due = [(camera * ENGINE_NS // 2, camera) for camera in range(CAMERAS)]
        newest = [0] * CAMERAS
        found, counts = [], [0] * CAMERAS
        for turn in range(1, 2001):
            now = turn * ENGINE_NS
            while due[0][0] <= now:
                at, camera = heapq.heappop(due)
                heapq.heappush(due, (at + 3 * ENGINE_NS + camera * drift_ns, camera))
                newest[camera] = at
                scheduler.offer(camera, Item(str(camera), turn), at)
            chosen = order(turn)
            if chosen is None:
                chosen = int(scheduler.take(now, 1).batch[0].camera)
            found.append(now - newest[chosen])
            counts[chosen] += 1
        return found[100:], counts

    in_turns, _ = ages(lambda turn: turn % CAMERAS)
    by_worth, counts = ages(lambda _: None)
    assert statistics.mean(by_worth) < 0.75 * statistics.mean(in_turns)
    assert percentile(by_worth, 99) < percentile(in_turns, 99)
    assert min(counts) > 0.8 * max(counts)


@pytest.mark.parametrize("apart_ns", [20, 100, 300])
def test_cameras_whose_frames_come_at_one_time_take_turns_in_being_the_last(apart_ns: int) -> None:
    """Six shutters that open together, and an engine with time for all: in a fixed order, one waits for the rest."""
    scheduler: Scheduler[int, Item] = Scheduler()
    for camera in range(CAMERAS):
        scheduler.add_camera(camera, replaces=True, depth=1, priority=0)
    ages: list[list[int]] = [[] for _ in range(CAMERAS)]
    for period in range(100):
        opened = period * 3 * CAMERAS * ENGINE_NS
        due = deque((opened + camera * apart_ns, camera) for camera in range(CAMERAS))
        now = opened
        for _ in range(CAMERAS):
            while due and due[0][0] <= now:
                at, camera = due.popleft()
                scheduler.offer(camera, Item(str(camera), period), at)
            (item,) = scheduler.take(now, 1).batch
            now += ENGINE_NS
            ages[int(item.camera)].append(now - opened)
    assert set(ages[0]) == {ENGINE_NS}  # it comes first, and nothing else is there yet
    means = [statistics.mean(one[4:]) for one in ages[1:]]
    assert min(means) > 0.85 * max(means)
    assert max(max(one) for one in ages) == CAMERAS * ENGINE_NS


def test_a_camera_is_served_by_one_worker_at_a_time() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("a", replaces=False, depth=3, priority=0)
    items = [Item("a", number) for number in range(3)]
    for item in items:
        scheduler.offer("a", item, 0)
    first = scheduler.take(0, 1, worker=1)
    assert first.batch == items[:1]
    assert not scheduler.has_turn(2, 0)
    assert scheduler.take(0, 1, worker=2).batch == []
    assert scheduler.take(0, 1, worker=1).batch == items[1:2]  # the same worker computes them in order
    scheduler.finish(first.keys, 0)
    assert not scheduler.has_turn(2, 0)
    scheduler.finish(first.keys, 0)
    assert scheduler.take(0, 1, worker=2).batch == items[2:]


def test_requests_are_batched_with_nothing() -> None:
    scheduler = scheduler_of("a", "b")
    scheduler.add_camera("requests", replaces=False, depth=9, priority=0, alone=True)
    for camera in ("requests", "a", "requests", "b"):
        scheduler.offer(camera, Item(camera, 0), 0)
    batches = [[item.camera for item in scheduler.take(0, 4).batch] for _ in range(3)]
    assert sorted(batches) == [["a", "b"], ["requests"], ["requests"]]


CURVE = LatencyCurve({1: 100, 2: 120, 3: 300, 4: 200})
"""Two frames pay, three do not, four do."""


@pytest.mark.parametrize(
    ("deadlines", "frames"),
    [
        ([None] * 4, 4),
        ([None] * 3, 2),
        ([None, None, None, 1199], 2),
        ([None, None, None, 1200], 4),
        ([1119, None], 1),
        ([1000, None], 1),
        ([], 0),
    ],
)
def test_a_batch_pays_and_ends_before_its_tightest_deadline(deadlines: list[int | None], frames: int) -> None:
    assert CURVE.best(deadlines, now_ns=1000) == frames
    scheduler = scheduler_of(*"abcd"[: len(deadlines)])
    for camera, deadline_ns in zip("abcd", deadlines, strict=False):
        scheduler.offer(camera, Item(camera, 0, deadline_ns), 0)
    assert len(scheduler.take(1000, 8, CURVE).batch) == frames


def test_on_a_cpu_no_batch_pays() -> None:
    curve = LatencyCurve({size: 100 * size - size for size in range(1, 9)})
    assert not any(curve.pays(size) for size in range(2, 9))
    assert "batches that pay: none" in str(curve)


def test_a_curve_is_the_fastest_of_several_runs() -> None:
    now, times = 0, itertools.cycle([5, 3, 4, 9, 8])

    def clock() -> int:
        return now

    def run(size: int) -> None:
        nonlocal now
        now += size * next(times)

    assert measure(run, 2, clock).latency_ns == {1: 3, 2: 6}
