from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from client.clock import SAMPLES, Exchange, OffsetFilter, StreamClock, best_offset, host_identity
from protos.monocoque.v1 import stream_pb2

SECOND = 10**9
offsets = st.integers(-(10**18), 10**18)
ways = st.integers(0, SECOND)
ways_both = st.tuples(ways, ways, st.integers(0, 10**6))


def exchange(sent_ns: int, offset_ns: int, out_ns: int, back_ns: int, held_ns: int) -> Exchange:
    """What both sides would stamp, were the server's clock `offset_ns` ahead."""
    arrived = sent_ns + out_ns
    return Exchange(
        t1=sent_ns, t2=arrived + offset_ns, t3=arrived + held_ns + offset_ns, t4=arrived + held_ns + back_ns
    )


@given(offset=offsets, trips=st.lists(ways_both, min_size=1, max_size=30))
def test_the_true_offset_is_within_the_stated_uncertainty(offset: int, trips: list[tuple[int, int, int]]) -> None:
    running = OffsetFilter()
    now = 0
    for out, back, held in trips:
        asked = exchange(now, offset, out, back, held)
        now = asked.t4 + SECOND
        running.add(asked)
        found = running.estimate(now)
        assert found is not None
        assert abs(found.offset_ns - offset) <= found.uncertainty_ns + 1
    assert running.steps == 0


@given(offset=offsets, trips=st.lists(ways_both, min_size=2, max_size=SAMPLES))
def test_a_slow_exchange_never_makes_the_estimate_worse(offset: int, trips: list[tuple[int, int, int]]) -> None:
    exchanges = [exchange(0, offset, out, back, held) for out, back, held in trips]
    now = max(one.t4 for one in exchanges)
    whole = best_offset(exchanges, now)
    assert whole is not None
    for one in exchanges:
        alone = best_offset([one], now)
        assert alone is not None
        assert whole.uncertainty_ns <= alone.uncertainty_ns


@given(offset=offsets, step=st.integers(10 * SECOND, 10**15), ahead=st.booleans())
def test_a_step_is_counted_and_forgets_what_was_known(offset: int, step: int, ahead: bool) -> None:
    running = OffsetFilter()
    for index in range(4):
        running.add(exchange(index * SECOND, offset, 1000, 1000, 0))
    stepped = offset + (step if ahead else -step)
    running.add(exchange(5 * SECOND, stepped, 1000, 1000, 0))
    found = running.estimate(5 * SECOND)
    assert running.steps == 1
    assert found is not None
    assert abs(found.offset_ns - stepped) <= found.uncertainty_ns + 1


def test_an_exchange_that_took_less_than_no_time_is_a_step() -> None:
    running = OffsetFilter()
    running.add(Exchange(t1=100, t2=0, t3=0, t4=50))
    running.add(Exchange(t1=0, t2=0, t3=100, t4=50))
    assert running.steps == 2
    assert running.estimate(100) is None


def test_a_monotonic_clock_is_declared_with_the_proof_of_its_host() -> None:
    declared = StreamClock().declaration()
    assert declared.kind == stream_pb2.CLOCK_KIND_SAME_HOST_MONOTONIC
    assert (declared.boot_id, declared.time_namespace) == host_identity()
    assert len(declared.boot_id) == 36
    assert declared.time_namespace.startswith("time:[")


def test_utc_is_declared_with_its_error() -> None:
    declared = StreamClock("utc", error_ns=5000).declaration()
    assert (declared.kind, declared.error_ns) == (stream_pb2.CLOCK_KIND_SYNCHRONIZED, 5000)


def test_without_proc_there_is_no_proof(tmp_path: Path) -> None:
    assert host_identity(tmp_path) is None
