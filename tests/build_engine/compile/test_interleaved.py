from __future__ import annotations

import numpy as np
import onnx
import pytest

from build_engine.compile.interleaved import FEWEST_ROUNDS, latencies, ratio
from build_engine.progress import Silent


def test_models_of_different_inputs_are_timed_in_the_same_rounds(
    classifier: onnx.ModelProto, camera_detector: onnx.ModelProto
) -> None:
    times = latencies({"a": classifier, "b": camera_detector}, seconds=0.01, progress=Silent())
    assert len(times["a"]) == len(times["b"]) >= FEWEST_ROUNDS
    assert (times["a"] > 0).all()


def test_a_disturbance_that_both_meet_leaves_the_ratio_alone() -> None:
    disturbed = np.array([1.0, 1, 9, 1, 30, 1, 1, 2, 1, 1, 1])
    found = ratio(0.8 * disturbed, disturbed)
    assert found.median == pytest.approx(0.8) and found.is_faster


def test_a_ratio_around_one_is_not_faster() -> None:
    noise = np.random.default_rng(0).normal(1, 0.05, (2, 41))
    assert not ratio(*noise).is_faster


def test_the_interval_of_the_median_is_that_of_the_sign_test() -> None:
    """For 11 values it is the 2nd smallest to the 2nd largest: 98.8 %, while the 3rd would give 93.5 %."""
    values = np.arange(1.0, 12.0)
    found = ratio(values, np.ones(11))
    assert (found.low, found.median, found.high) == (2, 6, 10)


@pytest.mark.parametrize(("rounds", "rank"), [(7, 1), (41, 14), (200, 86), (20_000, 9861)])
def test_the_interval_narrows_with_the_rounds(rounds: int, rank: int) -> None:
    """Ranks of the exact sign test, those of published tables among them."""
    found = ratio(np.arange(1.0, rounds + 1), np.ones(rounds))
    assert (found.low, found.high) == (rank, rounds + 1 - rank)


def test_too_few_rounds_prove_nothing() -> None:
    assert not ratio(np.full(5, 0.1), np.ones(5)).is_faster
