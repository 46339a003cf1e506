from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from build_engine import accuracy
from build_engine.graph import feeds, random_inputs, tensor_specs
from build_engine.progress import Silent
from build_engine.quantize import CPU_INT8, PLAIN, Judge, Quantizer, Store, lower_precision_core
from build_engine.quantize.judge import agreement
from build_engine.quantize.losing import Losing

Outputs = list[dict[str, np.ndarray]]


def answers(seed: int, count: int) -> Outputs:
    """Logits, probabilities beside coordinates, and classes; some frames hold nothing."""
    draw = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        scores = draw.uniform(0, 1, (1, 3, 20)) * draw.choice([0.01, 1.0])
        boxes = draw.uniform(2, 300, (1, 4, 20))
        frames.append(
            {
                "logits": draw.normal(size=(1, 7)).astype(np.float32),
                "detections": np.concatenate((boxes, scores), 1).astype(np.float32),
                "classes": draw.integers(0, 4, (1, 6, 5)),
            }
        )
    return frames


def disturbed(expected: Outputs, seed: int, amount: float) -> Outputs:
    draw = np.random.default_rng(seed)
    found = []
    for frame in expected:
        scale = amount * draw.choice([0.0, 0.3, 1.0, 3.0])
        found.append(
            {
                "logits": frame["logits"] + np.float32(scale) * draw.normal(size=(1, 7)).astype(np.float32),
                "detections": frame["detections"] * np.float32(1 + scale * draw.normal()),
                "classes": np.where(draw.uniform(size=(1, 6, 5)) < scale / 5, 9, frame["classes"]),
            }
        )
    return found


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), amount=st.floats(0, 2))
def test_no_more_is_said_to_be_lost_than_will_be(seed: int, count: int, amount: float) -> None:
    expected = answers(seed, count)
    actual = disturbed(expected, seed + 1, amount)
    figures = agreement(accuracy.compare("g", "fp32", expected, actual, None), expected, actual)
    drops = {name: 100 * (1 - value) for name, value in figures.items()}
    losing, before = Losing(expected), 0.0
    for frame in actual:
        points, figure = losing.add(frame)
        assert before - 1e-9 <= points <= drops[figure] + 1e-6, "sure, and more samples only add to it"
        before = points
    bounded = {name: drop for name, drop in drops.items() if "expected top-1" not in name}
    assert before == pytest.approx(max(bounded.values()), abs=1e-6), "after the last sample nothing is open"


def test_the_bound_is_reached_by_the_best_answer_to_what_is_ahead() -> None:
    draw = np.random.default_rng(0)
    expected = [{"y": draw.normal(size=(1, 50))} for _ in range(3)]
    first = expected[0]["y"] + draw.normal(size=(1, 50))
    losing = Losing(expected)
    points, _ = losing.add({"y": first})
    best = math.inf
    for factor in np.linspace(0.2, 3, 2801):
        actual = [{"y": first}, *({"y": factor * frame["y"]} for frame in expected[1:])]
        found = agreement(accuracy.compare("g", "fp32", expected, actual, None), expected, actual)
        best = min(best, 100 * (1 - found["y: cosine"]))
    assert best == pytest.approx(points, rel=1e-4)


def test_what_is_not_finite_or_of_another_length_bounds_nothing() -> None:
    expected = answers(0, 2)
    frame = {name: array.copy() for name, array in expected[0].items()}
    frame["logits"][0, 0] = np.nan
    assert Losing(expected).add(frame)[0] == pytest.approx(0.0, abs=1e-9)
    frame["logits"] = expected[0]["logits"][:, :3]
    assert Losing(expected).add(frame)[0] == pytest.approx(0.0, abs=1e-9)


@pytest.fixture(scope="module")
def samples(fused_detector: onnx.ModelProto) -> list[dict[str, Any]]:
    return [random_inputs(tensor_specs(feeds(fused_detector)), 1, seed) for seed in range(8)]


def test_a_judge_stops_at_what_is_enough_and_goes_on_for_a_looser_budget(
    fused_detector: onnx.ModelProto, samples: list[dict[str, Any]], tmp_path: Path
) -> None:
    core = lower_precision_core(fused_detector)
    candidate = Quantizer(fused_detector, core, samples, [CPU_INT8], Silent()).candidates(PLAIN)["cpu-int8"]
    whole = Judge(fused_detector, samples, None, None, Store(None, Silent()), Silent())(candidate)
    assert whole.complete and whole.drop > 0
    store = Store(tmp_path, Silent())
    judge = Judge(fused_detector, samples, None, None, store, Silent())
    part = judge(candidate, whole.drop / 4)
    assert not part.complete and whole.drop / 4 < part.drop <= whole.drop and not part.figures
    measured = store.measured
    assert judge(candidate, whole.drop / 8) == part and store.measured == measured, "known to lose more"
    assert judge(candidate, 2 * whole.drop).figures == whole.figures, "a budget it keeps is judged on every sample"
    assert judge(candidate, whole.drop / 8).complete, "and that is known from then on"
