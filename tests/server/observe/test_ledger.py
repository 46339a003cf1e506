from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.observe.ledger import STAGE_OF_BOUNDARY, Ledger
from server.observe.metrics import STAGES

durations = st.integers(0, 10**10)


@given(
    received=st.integers(0, 10**15),
    transport_ns=st.none() | durations,
    reached=st.integers(0, len(STAGE_OF_BOUNDARY)),
    steps=st.lists(durations, min_size=len(STAGE_OF_BOUNDARY), max_size=len(STAGE_OF_BOUNDARY)),
    answer_ns=durations,
)
def test_the_stages_that_are_set_add_up_to_the_total_exactly(
    received: int, transport_ns: int | None, reached: int, steps: list[int], answer_ns: int
) -> None:
    ledger = Ledger(received, sent=None if transport_ns is None else received - transport_ns)
    at = received
    for boundary, step in list(zip(STAGE_OF_BOUNDARY, steps, strict=True))[:reached]:
        at += step
        setattr(ledger, boundary, at)
    stages = dict(ledger.stages(at + answer_ns))
    total = stages.pop("total")
    assert sum(stages.values()) == total
    assert stages["answer"] == answer_ns
    assert stages.get("transport") == transport_ns
    expected = dict(list(zip(STAGE_OF_BOUNDARY.values(), steps, strict=True))[:reached])
    assert {stage: stages[stage] for stage in stages if stage not in ("answer", "transport")} == expected


@given(skipped=st.sets(st.sampled_from(list(STAGE_OF_BOUNDARY))))
def test_a_boundary_that_was_skipped_costs_no_time_its_place_in_the_sum(skipped: set[str]) -> None:
    ledger = Ledger(100)
    for index, boundary in enumerate(STAGE_OF_BOUNDARY):
        if boundary not in skipped:
            setattr(ledger, boundary, 100 + 10 * (index + 1))
    stages = dict(ledger.stages(1000))
    assert stages.pop("total") == sum(stages.values()) == 900


def test_every_stage_has_a_series() -> None:
    assert ("transport", *STAGE_OF_BOUNDARY.values(), "answer", "total") == STAGES
