from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from client.errors import ProtocolViolation
from client.outbox import BYTES_ON_THEIR_WAY, Outbox

CAMERAS = ["front", "left", "right"]
cameras = st.sampled_from(CAMERAS)


class OutboxMachine(RuleBasedStateMachine):
    """Any order of frames, credits and sends."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox: Outbox[int] = Outbox(CAMERAS)
        self.granted = dict.fromkeys(CAMERAS, 0)
        self.newest: dict[str, int] = {}
        self.sent: dict[str, list[int]] = {camera: [] for camera in CAMERAS}
        self.reported = dict.fromkeys(CAMERAS, 0)
        self.next = 0

    @rule(camera=cameras)
    def put(self, camera: str) -> None:
        replaced = self.outbox.put(camera, self.next)
        assert replaced == self.newest.get(camera)
        self.newest[camera] = self.next
        self.next += 1

    @rule(camera=cameras, frames=st.integers(1, 3))
    def grant(self, camera: str, frames: int) -> None:
        self.outbox.grant(camera, frames)
        self.granted[camera] += frames

    @rule()
    def take(self) -> None:
        taken = self.outbox.take()
        if taken is None:
            assert not any(self.outbox.credits(camera) for camera in self.newest)
            return
        camera, frame, dropped = taken
        assert frame == self.newest.pop(camera), "the newest frame goes, whatever came before it"
        self.sent[camera].append(frame)
        self.reported[camera] += dropped

    @rule()
    def give_up(self) -> None:
        self.outbox.give_up()
        self.newest.clear()
        assert self.outbox.is_empty()

    @invariant()
    def no_frame_is_sent_without_credit(self) -> None:
        for camera in CAMERAS:
            assert self.outbox.credits(camera) == self.granted[camera] - len(self.sent[camera]) >= 0

    @invariant()
    def each_frame_is_waiting_or_sent_or_dropped(self) -> None:
        for camera, counts in self.outbox.counts.items():
            assert counts.submitted == counts.sent + counts.client_dropped + (camera in self.newest)
            assert counts.sent == len(self.sent[camera])
            assert self.reported[camera] <= counts.client_dropped

    @invariant()
    def a_camera_is_never_sent_backwards(self) -> None:
        for frames in self.sent.values():
            assert frames == sorted(set(frames))


TestOutbox = OutboxMachine.TestCase


@given(rounds=st.integers(1, 5), busy=cameras)
def test_cameras_take_turns_however_busy_one_of_them_is(rounds: int, busy: str) -> None:
    outbox: Outbox[int] = Outbox(CAMERAS)
    for camera in CAMERAS:
        outbox.grant(camera, 100)
    served = []
    for number in range(3 * rounds):
        for camera in CAMERAS:
            outbox.put(camera, number)
        outbox.put(busy, number)
        taken = outbox.take()
        assert taken is not None
        served.append(taken[0])
    assert {camera: served.count(camera) for camera in CAMERAS} == dict.fromkeys(CAMERAS, rounds)


def test_credit_for_an_unknown_camera_is_the_servers_mistake() -> None:
    outbox: Outbox[int] = Outbox(CAMERAS)
    try:
        outbox.grant("rear", 1)
    except ProtocolViolation as error:
        assert "'rear'" in str(error)
    else:
        raise AssertionError


@given(sizes=st.lists(st.integers(0, 2 * BYTES_ON_THEIR_WAY), min_size=3, max_size=3), order=st.permutations(CAMERAS))
def test_frames_of_a_hurry_do_not_share_the_way(sizes: list[int], order: list[str]) -> None:
    size_of = dict(zip(CAMERAS, sizes, strict=True))
    outbox: Outbox[int] = Outbox(CAMERAS, hurries=True)
    for number, camera in enumerate(order):
        outbox.grant(camera, 1)
        outbox.put(camera, number, size_of[camera])
    on_their_way: list[str] = []
    arrived = []
    while len(arrived) < len(CAMERAS):
        while (taken := outbox.take()) is not None:
            on_their_way.append(taken[0])
        in_bytes = [size_of[camera] for camera in on_their_way]
        assert on_their_way, "one always goes"
        assert sum(in_bytes) <= BYTES_ON_THEIR_WAY or sum(size > 0 for size in in_bytes) == 1
        arrived.append(on_their_way.pop(0))
        outbox.grant(arrived[-1], 1)
    assert sorted(arrived) == sorted(CAMERAS)


def test_of_those_that_hurry_the_one_that_says_most_goes_first() -> None:
    box: Outbox[str] = Outbox(["a", "b", "c"], hurries=True)
    for camera in "abc":
        box.grant(camera, 9)
        box.put(camera, f"{camera}0", now_ns=0)
    assert [box.take() for _ in "abc"] == [("a", "a0", 0), ("b", "b0", 0), ("c", "c0", 0)]
    box.put("a", "a1", now_ns=100)  # it has waited for 30
    box.put("b", "b1", now_ns=130)  # it has just come
    assert box.take() == ("b", "b1", 0)
    box.put("b", "b2", now_ns=140)  # it has just come, too, but little has happened since b1
    assert box.take() == ("a", "a1", 0)
