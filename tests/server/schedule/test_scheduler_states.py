"""The scheduler's promises, whatever happens in whatever order: cameras, sets and workers come and go, time passes."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.schedule.batching import LatencyCurve
from server.schedule.ranking import STARVING_ROUNDS
from server.schedule.scheduler import Scheduler, Selection, is_late
from tests.server.schedule.test_scheduler import Item

LIVE, REPLAY = ("a", "b"), ("c", "d")
SETS = {"live set": ("s1", "s2", "s3"), "replay set": ("t1", "t2")}
CAMERAS = (*LIVE, *REPLAY, *(camera for cameras in SETS.values() for camera in cameras))
KEEPS_ALL = (*REPLAY, *SETS["replay set"])
SET_OF = {camera: name for name, cameras in SETS.items() for camera in cameras}
DEPTH = 3
TOLERANCE_NS = 5
CURVE = LatencyCurve({1: 3, 2: 4, 3: 6, 4: 6})


class EveryFrameLeavesOnce(RuleBasedStateMachine):
    """Nothing is lost, doubled, launched too old or out of order, or left to starve; memory is bounded."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[str, Item] = Scheduler()
        self.open: set[str] = set()
        self.inside: list[Item] = []
        self.computing: list[tuple[int, Selection[str, Item]]] = []
        self.passed_over: dict[str, int] = {}
        self.now_ns = 0
        self.number = 0

    @rule(camera=st.sampled_from((*LIVE, *REPLAY)), priority=st.integers(-1, 1), weight=st.integers(1, 3))
    def open_camera(self, camera: str, priority: int, weight: int) -> None:
        if camera not in self.open and not self._is_computed(camera):
            self.scheduler.add_camera(camera, replaces=camera in LIVE, depth=DEPTH, priority=priority, weight=weight)
            self.open.add(camera)

    @rule(name=st.sampled_from(sorted(SETS)), priority=st.integers(-1, 1))
    def open_set(self, name: str, priority: int) -> None:
        if not self.open & set(SETS[name]) and not self._is_computed(name):
            self.scheduler.add_set(
                name,
                SETS[name],
                tolerance_ns=TOLERANCE_NS,
                replaces=name == "live set",
                depth=DEPTH,
                priority=priority,
            )
            self.open |= set(SETS[name])

    def _is_computed(self, key: str) -> bool:
        """Whether a source's last frames still are: a stream that opens again has another name, so its cameras do."""
        return any(key in selection.keys for _, selection in self.computing)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """A camera, or all cameras of a set, as a stream does."""
        camera = data.draw(st.sampled_from(sorted(self.open)))
        cameras = SETS[SET_OF[camera]] if camera in SET_OF else (camera,)
        gone = [item for one in cameras for item in self.scheduler.remove_camera(one)]
        assert {id(item) for item in gone} == {id(item) for item in self.inside if item.camera in cameras}
        self._left(gone)
        self.open -= set(cameras)
        self.passed_over.pop(SET_OF.get(camera, camera), None)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), max_age_ns=st.none() | st.integers(0, 20), back_ns=st.integers(0, 12))
    def offer(self, data: st.DataObject, max_age_ns: int | None, back_ns: int) -> None:
        camera = data.draw(st.sampled_from(sorted(self.open)))
        if not self.scheduler.has_room(camera):
            assert camera in KEEPS_ALL
            return
        self.number += 1
        taken_ns = self.now_ns - back_ns
        deadline_ns = None if max_age_ns is None else taken_ns + max_age_ns
        item = Item(camera, self.number, deadline_ns, taken_ns)
        self.inside.append(item)
        replaced = self.scheduler.offer(camera, item, self.now_ns)
        assert not {one.camera for one in replaced} & set(KEEPS_ALL)
        assert {SET_OF.get(one.camera, one.camera) for one in replaced} <= {SET_OF.get(camera, camera)}
        self._left(replaced)

    @rule(name=st.sampled_from(sorted(SETS)))
    def end_set(self, name: str) -> None:
        replaced = self.scheduler.end_set(name, self.now_ns)
        assert not {one.camera for one in replaced} - set(SETS["live set"])
        self._left(replaced)

    @rule(elapsed_ns=st.integers(0, 15))
    def wait(self, elapsed_ns: int) -> None:
        self.now_ns += elapsed_ns

    @rule(max_batch=st.integers(1, 4), worker=st.integers(1, 2), curve=st.none() | st.just(CURVE))
    def take(self, max_batch: int, worker: int, curve: LatencyCurve | None) -> None:
        others = {key for other, selection in self.computing if other != worker for key in selection.keys}
        had_turn = self.scheduler.has_turn(worker, self.now_ns)
        selection = self.scheduler.take(self.now_ns, max_batch, curve, worker)
        assert had_turn or not (selection.batch or selection.late)
        assert len(selection.batch) <= max_batch
        assert not others & set(selection.keys), "two workers have frames of one source"
        assert all(is_late(item, self.now_ns) for item in selection.late)
        assert not any(is_late(item, self.now_ns) for item in selection.batch)
        assert not {item.camera for item in selection.stale} & set(KEEPS_ALL)
        self._check_order(selection)
        self._check_sets(selection)
        self._left([*selection.late, *selection.stale, *selection.batch])
        if selection.batch:
            self.computing.append((worker, selection))
            for key in self._waiting_for(worker):
                self.passed_over[key] = self.passed_over.get(key, 0) + 1
        for key in selection.keys:
            self.passed_over[key] = 0

    @precondition(lambda self: self.computing)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.computing) - 1))
        self.scheduler.finish(self.computing.pop(number)[1].keys, self.now_ns)

    @invariant()
    def nothing_is_lost_and_memory_is_bounded(self) -> None:
        depths = self.scheduler.depths()
        assert sum(depths.values()) == len(self.inside)
        assert set(depths) == {SET_OF.get(camera, camera) for camera in self.open}
        for key, depth in depths.items():
            frames = len(SETS.get(key, (key,)))
            groups = DEPTH if key in (*REPLAY, "replay set") else 1
            # Beside the groups that wait: one that forms, one that was begun, and in a replay what one offer adds.
            assert depth <= frames * (groups + (3 if key in SETS else 0))
        assert self.scheduler.is_empty == (not self.inside)

    @invariant()
    def nobody_starves(self) -> None:
        sources = len(CAMERAS)
        frames_of_a_set = max(len(cameras) for cameras in SETS.values())
        assert max(self.passed_over.values(), default=0) <= (STARVING_ROUNDS + frames_of_a_set) * sources

    def _left(self, items: list[Item]) -> None:
        for item in items:
            self.inside.remove(item)

    def _waiting_for(self, worker: int) -> set[str]:
        """Sources with a frame in the first place that this worker could have taken."""
        others = {key for other, selection in self.computing if other != worker for key in selection.keys}
        waiting = {SET_OF.get(item.camera, item.camera) for item in self.inside if item.camera not in SET_OF}
        return waiting - others

    def _check_order(self, selection: Selection[str, Item]) -> None:
        for item in selection.batch:
            older = [one for one in self.inside if one.camera == item.camera and one.number < item.number]
            assert set(map(id, older)) <= set(map(id, [*selection.late, *selection.stale]))

    def _check_sets(self, selection: Selection[str, Item]) -> None:
        for item in selection.batch:
            if item.camera not in SET_OF:
                assert item.frame_set is None
                continue
            assert item.frame_set is not None
            assert 0 <= item.frame_set.spread_ns <= TOLERANCE_NS
            assert 0 <= item.taken_ns - item.frame_set.first_ns <= item.frame_set.spread_ns
            assert item.camera not in item.frame_set.missing
            assert selection.keys == [SET_OF[item.camera]], "a set is computed alone"
        assert len({id(item.frame_set) for item in selection.batch}) <= 1


TestEveryFrameLeavesOnce = EveryFrameLeavesOnce.TestCase
TestEveryFrameLeavesOnce.settings = settings(max_examples=100, stateful_step_count=40)
