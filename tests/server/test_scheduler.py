from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.scheduler import STARVING_TURNS, Scheduler, is_late


@dataclass(eq=False)
class Item:
    camera: str
    number: int
    deadline_ns: int | None = None


CAMERAS = ("a", "b", "c", "d")
REPLAY = ("c", "d")
DEPTH = 3


def scheduler_of(*cameras: str, priority: int = 0) -> Scheduler[str, Item]:
    scheduler: Scheduler[str, Item] = Scheduler()
    for camera in cameras:
        scheduler.add_camera(camera, replaces=True, depth=1, priority=priority)
    return scheduler


def test_a_newer_frame_replaces_the_one_that_waits() -> None:
    scheduler = scheduler_of("a")
    old, new = Item("a", 1), Item("a", 2)
    assert scheduler.offer("a", old) is None
    assert scheduler.offer("a", new) is old
    assert scheduler.take(0, 1).batch == [new]
    assert scheduler.is_empty


def test_a_queue_keeps_its_order_and_its_bound() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("a", replaces=False, depth=2, priority=0)
    first, second = Item("a", 1), Item("a", 2)
    scheduler.offer("a", first)
    scheduler.offer("a", second)
    assert not scheduler.has_room("a")
    with pytest.raises(OverflowError, match="camera a has 2 frames waiting, its queue takes 2"):
        scheduler.offer("a", Item("a", 3))
    assert scheduler.take(0, 4).batch == [first]  # one frame per camera and batch
    assert scheduler.has_room("a")
    assert scheduler.take(0, 4).batch == [second]


def test_the_camera_served_longest_ago_goes_first() -> None:
    scheduler = scheduler_of("a", "b", "c")
    order = []
    for _ in range(6):
        for camera in "abc":
            scheduler.offer(camera, Item(camera, 0))
        order += [item.camera for item in scheduler.take(0, 1).batch]
    assert order == ["a", "b", "c", "a", "b", "c"]


def test_late_frames_are_shed_and_make_room_for_the_next() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("a", replaces=False, depth=3, priority=0)
    items = [Item("a", 0, deadline_ns=10), Item("a", 1, deadline_ns=10), Item("a", 2, deadline_ns=100)]
    for item in items:
        scheduler.offer("a", item)
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
            scheduler.offer(camera, Item(str(camera), turn))
            waited[camera] += 1
        for item in scheduler.take(0, max_batch).batch:
            waited[int(item.camera)] = 0
        assert max(waited.values()) <= STARVING_TURNS + len(priorities)


def test_priority_goes_first_while_nobody_starves() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_camera("low", replaces=True, depth=1, priority=0)
    scheduler.add_camera("high", replaces=True, depth=1, priority=1)
    served = []
    for turn in range(2 * (STARVING_TURNS + 1)):
        for camera in ("low", "high"):
            scheduler.offer(camera, Item(camera, turn))
        served += [item.camera for item in scheduler.take(0, 1).batch]
    assert served == (["high"] * STARVING_TURNS + ["low"]) * 2


class EveryFrameLeavesOnce(RuleBasedStateMachine):
    """Frames go in, time passes, batches come out, cameras come and go: nothing is lost, doubled, or too old."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[str, Item] = Scheduler()
        self.open: set[str] = set()
        self.inside: list[Item] = []
        self.now_ns = 0
        self.number = 0

    @rule(camera=st.sampled_from(CAMERAS), priority=st.integers(-1, 1))
    def open_camera(self, camera: str, priority: int) -> None:
        if camera not in self.open:
            self.scheduler.add_camera(camera, replaces=camera not in REPLAY, depth=DEPTH, priority=priority)
            self.open.add(camera)

    @rule(camera=st.sampled_from(CAMERAS))
    def close_camera(self, camera: str) -> None:
        gone = self.scheduler.remove_camera(camera)
        assert gone == [item for item in self.inside if item.camera == camera]
        self.inside = [item for item in self.inside if item.camera != camera]
        self.open.discard(camera)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), max_age_ns=st.none() | st.integers(0, 20))
    def offer(self, data: st.DataObject, max_age_ns: int | None) -> None:
        camera = data.draw(st.sampled_from(sorted(self.open)))
        if not self.scheduler.has_room(camera):
            return
        self.number += 1
        item = Item(camera, self.number, None if max_age_ns is None else self.now_ns + max_age_ns)
        replaced = self.scheduler.offer(camera, item)
        if replaced is not None:
            assert replaced.camera == camera
            assert camera not in REPLAY
            self.inside.remove(replaced)
        self.inside.append(item)

    @rule(elapsed_ns=st.integers(0, 15))
    def wait(self, elapsed_ns: int) -> None:
        self.now_ns += elapsed_ns

    @rule(max_batch=st.integers(1, 4))
    def take(self, max_batch: int) -> None:
        waiting = {item.camera for item in self.inside if not is_late(item, self.now_ns)}
        selection = self.scheduler.take(self.now_ns, max_batch)
        assert len(selection.batch) == min(max_batch, len(waiting))
        assert len({item.camera for item in selection.batch}) == len(selection.batch)
        for item in selection.late:
            assert is_late(item, self.now_ns)
            self.inside.remove(item)
        for item in selection.batch:
            assert not is_late(item, self.now_ns)
            older = [other for other in self.inside if other.camera == item.camera and other.number < item.number]
            assert not older
            self.inside.remove(item)

    @invariant()
    def nothing_is_lost_and_memory_is_bounded(self) -> None:
        depths = self.scheduler.depths()
        assert sum(depths.values()) == len(self.inside)
        assert set(depths) == self.open
        for camera, depth in depths.items():
            assert depth <= (DEPTH if camera in REPLAY else 1)
        assert self.scheduler.is_empty == (not self.inside)


TestEveryFrameLeavesOnce = EveryFrameLeavesOnce.TestCase
TestEveryFrameLeavesOnce.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
