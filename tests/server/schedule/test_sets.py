"""Which frames make a set, and when it is not waited for any longer: the cases of `server/schedule/sets.py`."""

from __future__ import annotations

from server.schedule.scheduler import Scheduler
from server.schedule.sets import Gatherer
from tests.server.schedule.test_scheduler import Item

MS = 1_000_000
CAMERAS = ("front", "left", "right")


def gatherer(keeps_all: bool = False) -> Gatherer[str, Item]:
    return Gatherer(CAMERAS, 5 * MS, keeps_all)


def test_case_1_a_set_is_ready_with_its_last_camera_and_says_how_far_apart_they_were() -> None:
    sets = gatherer()
    items = [Item(camera, 1, taken_ns=at * MS) for camera, at in (("right", 3), ("front", 0), ("left", 2))]
    assert [sets.offer(item.camera, item, at * MS).sets for at, item in enumerate(items, 10)][:2] == [[], []]
    frame_set = items[0].frame_set
    assert frame_set is not None
    assert frame_set is items[2].frame_set
    assert (frame_set.frames, frame_set.missing, frame_set.cause) == (3, (), "complete")
    assert (frame_set.first_ns, frame_set.spread_ns, frame_set.gathered_ns) == (0, 3 * MS, 2 * MS)


def test_case_2_the_earliest_deadline_forces_an_incomplete_set_with_time_to_compute_it() -> None:
    sets = gatherer()
    sets.lead_ns = 10 * MS
    first, second = Item("left", 1, deadline_ns=100 * MS), Item("front", 1, deadline_ns=50 * MS)
    sets.offer("left", first, 0)
    assert sets.due_ns() == 90 * MS
    sets.offer("front", second, 0)
    assert sets.due_ns() == 40 * MS
    assert sets.close_due(40 * MS - 1) is None
    assert sets.close_due(40 * MS) == [second, first]  # in the order of the cameras
    assert second.frame_set is not None
    assert (second.frame_set.missing, second.frame_set.cause) == (("right",), "deadline")


def test_case_3_a_frame_of_the_next_moment_ends_a_set() -> None:
    sets = gatherer()
    sets.offer("front", Item("front", 1, taken_ns=0), 0)
    closed, following = sets.offer("front", Item("front", 2, taken_ns=33 * MS), 33 * MS).sets
    assert [item.number for item in following] == [2]  # nobody else is awaited any more
    assert [item.number for item in closed] == [1]
    assert closed[0].frame_set is not None
    assert (closed[0].frame_set.missing, closed[0].frame_set.cause) == (("left", "right"), "next")


def test_a_dead_camera_delays_the_others_once_and_is_awaited_again_when_it_is_back() -> None:
    sets = gatherer()
    causes = []
    for turn in range(4):
        for camera in ("front", "left"):  # `right` is dead
            at = 33 * MS * turn
            found = sets.offer(camera, Item(camera, turn, taken_ns=at), at).sets
            causes += [(turn, group[0].frame_set.cause) for group in found if group[0].frame_set is not None]
    assert causes == [(1, "next"), (1, "complete"), (2, "complete"), (3, "complete")]
    at = 200 * MS
    assert not sets.offer("right", Item("right", 9, taken_ns=at), at).sets
    assert not sets.offer("front", Item("front", 9, taken_ns=at), at).sets
    assert len(sets.offer("left", Item("left", 9, taken_ns=at), at).sets) == 1
    assert not sets.offer("front", Item("front", 10, taken_ns=at + 33 * MS), at).sets


def test_a_frame_whose_set_has_gone_is_replaced_or_where_every_frame_counts_a_set_of_its_own() -> None:
    for keeps_all in (False, True):
        sets = gatherer(keeps_all)
        for turn in range(2):
            for camera in ("front", "left"):
                sets.offer(camera, Item(camera, turn, taken_ns=33 * MS * turn), 33 * MS * turn)
        late = Item("right", 1, taken_ns=33 * MS)
        result = sets.offer("right", late, 60 * MS)
        assert (result.replaced, result.sets) == (([], [[late]]) if keeps_all else ([late], []))


def test_a_second_frame_of_a_camera_replaces_its_first_while_the_set_forms() -> None:
    sets = gatherer()
    old, new = Item("front", 1, taken_ns=0), Item("front", 2, taken_ns=2 * MS)
    sets.offer("front", old, 0)
    assert sets.offer("front", new, 2 * MS).replaced == [old]
    sets = gatherer(keeps_all=True)
    sets.offer("front", old, 0)
    assert sets.offer("front", new, 2 * MS).sets == [[old], [new]]


def test_a_clock_that_jumps_back_ends_the_set_and_no_more() -> None:
    sets = gatherer()
    sets.offer("front", Item("front", 1, taken_ns=10**15), 0)
    assert len(sets.offer("front", Item("front", 2, taken_ns=0), 33 * MS).sets) == 2
    for camera in ("left", "right"):
        sets.offer(camera, Item(camera, 2, taken_ns=0), 34 * MS)
    complete = [sets.offer(camera, Item(camera, 3, taken_ns=33 * MS), 66 * MS).sets for camera in CAMERAS]
    assert len(complete[-1]) == 1


def test_a_set_is_computed_batch_by_batch_before_anything_else_and_never_replaced_half_way() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_set("set", CAMERAS, tolerance_ns=5, replaces=True, depth=1, priority=0)
    scheduler.add_camera("rear", replaces=True, depth=1, priority=5)
    for camera in CAMERAS:
        scheduler.offer(camera, Item(camera, 1), 0)
    first = scheduler.take(0, 2)
    assert [item.camera for item in first.batch] == ["front", "left"]
    scheduler.offer("rear", Item("rear", 1), 0)
    for turn in (2, 3):
        replaced = [scheduler.offer(camera, Item(camera, turn, taken_ns=99 * turn), 0) for camera in CAMERAS]
        assert [len(group) for group in replaced] == ([0, 0, 0] if turn == 2 else [0, 0, 3])
    assert [(item.camera, item.number) for item in scheduler.take(0, 2).batch] == [("right", 1)]
    assert [item.camera for item in scheduler.take(0, 2).batch] == ["rear"]
    assert [(item.camera, item.number) for item in scheduler.take(0, 9).batch] == [(name, 3) for name in CAMERAS]


def test_the_time_a_set_took_is_kept_free_before_the_next_deadline() -> None:
    scheduler: Scheduler[str, Item] = Scheduler()
    scheduler.add_set("set", CAMERAS, tolerance_ns=5, replaces=True, depth=1, priority=0)
    for camera in CAMERAS:
        scheduler.offer(camera, Item(camera, 1), 0)
    first, second = scheduler.take(1000, 2), scheduler.take(1400, 2)
    scheduler.finish(first.keys, 1500)
    scheduler.finish(second.keys, 1700)
    scheduler.offer("front", Item("front", 2, deadline_ns=5000, taken_ns=1700), 1700)
    assert scheduler.due_ns() == 4300
    assert not scheduler.has_turn(0, 4299)
    assert [item.camera for item in scheduler.take(4300, 2).batch] == ["front"]
