from __future__ import annotations

import pytest

from protos.monocoque.v1 import stream_pb2 as pb
from server.stream.clock import ClientClock, HostClock, StepWatch, declared

HOST = HostClock(monotonic_ns=lambda: 1_000, utc_ns=lambda: 5_001_000, boot_id="boot", time_namespace="time:[1]")
SAME, SYNCHRONIZED, UNKNOWN = (
    pb.CLOCK_KIND_SAME_HOST_MONOTONIC,
    pb.CLOCK_KIND_SYNCHRONIZED,
    pb.CLOCK_KIND_UNKNOWN,
)
DAY_NS = 24 * 3600 * 10**9
DAY_NS = 24 * 3600 * 10**9


@pytest.mark.parametrize(
    ("clock", "kind"),
    [
        (pb.Clock(), UNKNOWN),
        (pb.Clock(kind=UNKNOWN), UNKNOWN),
        (pb.Clock(kind=SAME, boot_id="boot", time_namespace="time:[1]"), SAME),
        (pb.Clock(kind=SAME, boot_id="other", time_namespace="time:[1]"), UNKNOWN),
        (pb.Clock(kind=SAME, boot_id="boot", time_namespace="time:[2]"), UNKNOWN),
        (pb.Clock(kind=SAME, boot_id="boot"), UNKNOWN),
        (pb.Clock(kind=SYNCHRONIZED, error_ns=50), SYNCHRONIZED),
    ],
)
def test_the_same_host_is_proved_and_anything_else_is_unknown(clock: pb.Clock, kind: int) -> None:
    assert declared(clock, HOST).kind == kind


def test_a_host_without_a_boot_id_proves_nothing() -> None:
    assert declared(pb.Clock(kind=SAME), HostClock()).kind == UNKNOWN


def test_this_host_has_a_proof() -> None:
    host = HostClock.of_this_host()
    assert len(host.boot_id) == 36
    assert declared(pb.Clock(kind=SAME, boot_id=host.boot_id, time_namespace=host.time_namespace), host).kind == SAME


@pytest.mark.parametrize(
    ("clock", "client_ns", "at"),
    [
        (ClientClock(SAME, 0), 900, 900),
        (ClientClock(SAME, 0), 0, None),  # not written
        (ClientClock(SAME, 0), 1_001, None),  # later than its own arrival
        (ClientClock(UNKNOWN, 0), 900, None),
        (ClientClock(SYNCHRONIZED, 50), 5_000_900, 900),
        (ClientClock(SYNCHRONIZED, 50), 5_001_050, 1_000),  # within the error bound: the moment of arrival
        (ClientClock(SYNCHRONIZED, 50), 5_001_051, None),
        (ClientClock(SYNCHRONIZED, 50), -(2**63), None),  # no age fits into 64 bits
        (ClientClock(SAME, 0), -(2**63), None),
        (ClientClock(SAME, 0), 1_000 - DAY_NS, 1_000 - DAY_NS),
        (ClientClock(SAME, 0), 999 - DAY_NS, None),
        (ClientClock(SYNCHRONIZED, 50), 900, 900 - 5_000_000),
        (ClientClock(SYNCHRONIZED, 50), 5_000_999 - DAY_NS, None),
    ],
)
def test_a_clients_time_in_our_clock(clock: ClientClock, client_ns: int, at: int | None) -> None:
    assert clock.to_monotonic(client_ns, 1_000, HOST) == at


class Steps:
    """A server and a client whose clocks a test sets."""

    def __init__(self, kind: pb.ClockKind.ValueType, error_ns: int = 0) -> None:
        self.now, self.utc_offset, self.client_offset = 10**9, 10**18, 0
        self.synchronized = kind == SYNCHRONIZED
        host = HostClock(monotonic_ns=lambda: self.now, utc_ns=lambda: self.now + self.utc_offset)
        self.watch = StepWatch(ClientClock(kind, error_ns), host)

    def frame(self, after_ns: int = 33_000_000) -> list[str]:
        self.now += after_ns
        sent = self.now - 1_000_000 + (self.utc_offset if self.synchronized else 0) + self.client_offset
        return self.watch.steps(sent, self.now)


@pytest.mark.parametrize("kind", [SAME, SYNCHRONIZED, UNKNOWN])
def test_clocks_that_run_have_no_steps(kind: pb.ClockKind.ValueType) -> None:
    world = Steps(kind)
    for number in range(100):
        world.utc_offset += 10_000 * (-1) ** number  # NTP slews a clock by up to 500 ppm
        assert world.frame() == []


@pytest.mark.parametrize("kind", [SAME, SYNCHRONIZED, UNKNOWN])
def test_a_clients_clock_that_goes_back_is_one_step(kind: pb.ClockKind.ValueType) -> None:
    world = Steps(kind)
    assert world.frame() == []
    world.client_offset -= 10**9
    assert [world.frame() for _ in range(5)] == [["client"], [], [], [], []]


@pytest.mark.parametrize("kind", [SAME, SYNCHRONIZED])
def test_a_clients_clock_that_runs_ahead_of_its_own_messages_is_one_step(kind: pb.ClockKind.ValueType) -> None:
    world = Steps(kind)
    assert world.frame() == []
    world.client_offset += 10**9
    assert [world.frame() for _ in range(5)] == [["client"], [], [], [], []]


@pytest.mark.parametrize("kind", [SAME, SYNCHRONIZED])
def test_a_clients_clock_that_is_another_than_it_declared_is_one_step(kind: pb.ClockKind.ValueType) -> None:
    world = Steps(kind)
    world.client_offset = -(10**18)
    assert [world.frame() for _ in range(3)] == [["client"], [], []]


def test_the_servers_utc_that_is_set_is_its_step() -> None:
    world = Steps(SYNCHRONIZED, error_ns=10**7)
    assert world.frame() == []
    world.utc_offset += 3 * 10**9
    world.client_offset -= 3 * 10**9  # the client's clock stayed as it was
    assert world.frame() == ["server"]
    assert world.frame() == []
    assert world.frame(after_ns=3600 * 10**9) == []
